package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger/client"
	"banger/internal/api"
)

func newSuspend(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "suspend <vm>...",
		Short: "Save the memory of VMs to disk and free it",
		Long: `Save VMs with their memory in their directories and end their processes on the host. banger start
resumes them where they were, and so do exec and cp.`,
		Example: `  banger vm suspend devbox
  banger start devbox`,
		Args:              atLeastOne("VM"),
		ValidArgsFunction: a.completeVMs(many, live),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				return a.each(ctx, c, args, func(ctx context.Context, vm api.VM, p *progress) error {
					_, err := c.SuspendVM(ctx, vm.ID, p.watch)
					return err
				})
			})
		},
	}
}
