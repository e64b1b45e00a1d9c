package doctor

import (
	"cmp"
	"context"
	"os"

	"banger/internal/paths"
	"banger/internal/sshconfig"
)

// sshShortcut looks whether NAME.vm is a host for ssh, and still means this
// banger.
func (e *exam) sshShortcut(context.Context) {
	const name, remedy = "ssh shortcut", "banger ssh-config --install"
	file := sshconfig.Of(e.host.home, e.dirs.SSHConfig())
	found, first, err := file.Installed()
	switch {
	case err != nil:
		e.add(name, Warn, "cannot be told: "+err.Error())
		return
	case !found:
		e.pass(name, "not installed, banger ssh NAME works; %s makes it ssh NAME.vm", remedy)
		return
	case !first:
		e.add(name, Warn, file.Path+" does not begin with it: what stands before it counts first", remedy)
		return
	}
	exe, _ := os.Executable()
	place := sshconfig.Place{
		Exe: exe, Env: paths.Env(), KnownHosts: e.dirs.KnownHosts(), Identity: cmp.Or(e.config.SSHKeyPath, e.dirs.UserKey()),
	}
	if text, err := os.ReadFile(file.Include); err != nil || string(text) != place.Block() {
		e.add(name, Warn, "it is of another banger, or of other settings", remedy)
		return
	}
	e.pass(name, "ssh NAME.vm reaches a VM")
}
