package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger/client"
	"banger/internal/api"
)

type startOptions struct {
	app  *app
	refs []string
	cold bool

	trace bool
}

func newStart(a *app) *cobra.Command {
	o := &startOptions{app: a}
	cmd := &cobra.Command{
		Use:   "start <vm>...",
		Short: "Start VMs and wait until they are ready",
		Long: `Start VMs that were created or stopped, and wait until their guests are ready. A VM that never ran
is a fork of a template where there is one; others boot from their disks. A VM that runs is left as it
is.`,
		Example: `  banger start devbox
  banger vm start $(banger vm list -q)`,
		Args:              atLeastOne("VM"),
		ValidArgsFunction: a.completeVMs(many, notLive),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.refs = args
			return a.with(cmd, o.run)
		},
	}
	cmd.Flags().BoolVar(&o.cold, "cold", false, "boot without a template")
	cmd.Flags().BoolVar(&o.trace, "trace", false, "say afterwards where the time went")
	return cmd
}

func (o *startOptions) run(ctx context.Context, c *client.Client) error {
	return o.app.each(ctx, c, o.refs, func(ctx context.Context, vm api.VM, p *progress) error {
		t := newTrace()
		started, err := c.StartVM(ctx, vm.ID, api.StartVM{Cold: o.cold, Wait: true}, p.watch)
		if err == nil && o.trace && !vm.State.Live() {
			t.start(started.Trace)
			t.report(o.app.voice, "")
		}
		return err
	})
}
