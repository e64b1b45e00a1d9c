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
}

func newStart(a *app) *cobra.Command {
	o := &startOptions{app: a}
	cmd := &cobra.Command{
		Use:   "start <vm>...",
		Short: "Start VMs and wait until they are ready",
		Long: `Start VMs that were created or stopped, from their disks, and wait until their guests are ready.
A VM that runs is left as it is.`,
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
	return cmd
}

func (o *startOptions) run(ctx context.Context, c *client.Client) error {
	return o.app.each(ctx, c, o.refs, func(ctx context.Context, vm api.VM, p *progress) error {
		_, err := c.StartVM(ctx, vm.ID, api.StartVM{Cold: o.cold, Wait: true}, p.watch)
		return err
	})
}
