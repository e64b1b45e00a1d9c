package cli

import "context"

// shells are what an interactive run opens, the first one the image has.
var shells = []string{"/bin/bash", "/bin/sh"}

// shell finds the shell of a run without a command. Where the image has none,
// nothing was done in the VM and it goes again.
func (l *launch) shell(ctx context.Context) ([]string, error) {
	for _, path := range shells {
		st, err := l.shim.Guest().Stat(ctx, path)
		if err != nil {
			return nil, err
		}
		if st.Exists && !st.Dir {
			return []string{path}, nil
		}
	}
	if err := l.remove(); err != nil {
		l.app.warn("cannot delete the VM %s: %v", l.vm.Name, err)
	}
	return nil, badUsage("the image %s has no shell: give a command", l.vm.Image).
		Hint("banger run --image %s -- COMMAND", l.vm.Image)
}
