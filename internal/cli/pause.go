package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger/client"
	"banger/internal/api"
)

func newPause(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "pause <vm>...",
		Short:             "Halt VMs where they are",
		Long:              `Halt the processors of VMs. They keep their memory and take no time until they are resumed.`,
		Example:           `  banger vm pause devbox`,
		Args:              atLeastOne("VM"),
		ValidArgsFunction: a.completeVMs(many, live),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				return a.each(ctx, c, args, func(ctx context.Context, vm api.VM, _ *progress) error {
					_, err := c.PauseVM(ctx, vm.ID)
					return err
				})
			})
		},
	}
}

func newResume(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "resume <vm>...",
		Short:             "Let paused VMs go on",
		Example:           `  banger vm resume devbox`,
		Args:              atLeastOne("VM"),
		ValidArgsFunction: a.completeVMs(many, live),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				return a.each(ctx, c, args, func(ctx context.Context, vm api.VM, _ *progress) error {
					_, err := c.ResumeVM(ctx, vm.ID)
					return err
				})
			})
		},
	}
}
