package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"banger/client"
	"banger/internal/api"
)

var killSignals = []string{"KILL", "TERM", "INT"}

type killOptions struct {
	app    *app
	refs   []string
	signal string
}

func newKill(a *app) *cobra.Command {
	o := &killOptions{app: a}
	cmd := &cobra.Command{
		Use:   "kill <vm>...",
		Short: "End VMs at once, like pulling the plug",
		Long: `Send a signal to the virtual machine monitor of VMs. The guests are not asked: what they have not
synced is lost, and a suspended VM loses its memory. To end a process inside, use
banger exec <vm> -- kill.`,
		Example:           `  banger vm kill devbox`,
		Args:              atLeastOne("VM"),
		ValidArgsFunction: a.completeVMs(many, wakes),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.refs, o.signal = args, strings.TrimPrefix(strings.ToUpper(o.signal), "SIG")
			if !slices.Contains(killSignals, o.signal) {
				return badUsage("bad signal %q: it must be KILL, TERM or INT", o.signal)
			}
			return a.with(cmd, o.run)
		},
	}
	cmd.Flags().StringVar(&o.signal, "signal", "KILL", "send this `SIGNAL`: KILL, TERM or INT")
	a.completeFlag(cmd, "signal", killSignals...)
	return cmd
}

func (o *killOptions) run(ctx context.Context, c *client.Client) error {
	return o.app.each(ctx, c, o.refs, func(ctx context.Context, vm api.VM, _ *progress) error {
		_, err := c.KillVM(ctx, vm.ID, o.signal)
		return err
	})
}
