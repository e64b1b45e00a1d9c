package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger/client"
	"banger/internal/api"
)

func newRestart(a *app) *cobra.Command {
	o := &stopOptions{app: a}
	cmd := &cobra.Command{
		Use:               "restart <vm>...",
		Short:             "Stop VMs in good order and start them again",
		Example:           `  banger restart devbox`,
		Args:              atLeastOne("VM"),
		ValidArgsFunction: a.completeVMs(many, anyState),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.with(cmd, args, o.restart)
		},
	}
	o.register(cmd)
	return cmd
}

func (o *stopOptions) restart(ctx context.Context, c *client.Client) error {
	return o.app.each(ctx, c, o.refs, func(ctx context.Context, vm api.VM, p *progress) error {
		_, err := c.RestartVM(ctx, vm.ID, o.req, p.watch)
		return err
	})
}
