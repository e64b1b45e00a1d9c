package cli

import (
	"testing"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api"
)

func TestCommandsThatWakeAVMOfferASuspendedOne(t *testing.T) {
	for state, want := range map[banger.State]bool{
		banger.StateRunning: true, banger.StatePaused: true, banger.StateSuspended: true, banger.StateStopped: false, banger.StateCreated: false,
	} {
		if got := wakes(api.VM{State: state}); got != want {
			t.Errorf("one that is %s: %v", state, got)
		}
	}
}

// Where no daemon runs there are no VMs, and files are all there is.
func TestCopiesCompleteFilesWhereNoVMIsMeant(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_STATE_HOME", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	cmd := &cobra.Command{}
	cmd.SetContext(t.Context())
	for _, c := range []struct {
		args  []string
		typed string
		want  cobra.ShellCompDirective
	}{
		{nil, "./x", cobra.ShellCompDirectiveDefault},
		{nil, "dev", cobra.ShellCompDirectiveDefault},
		{[]string{"devbox:/etc"}, "", cobra.ShellCompDirectiveDefault},
		{nil, "devbox:/e", cobra.ShellCompDirectiveNoFileComp},
	} {
		if names, got := new(app).completeSides(cmd, c.args, c.typed); got != c.want || len(names) > 0 {
			t.Errorf("%q after %q: %q, %v", c.typed, c.args, names, got)
		}
	}
}
