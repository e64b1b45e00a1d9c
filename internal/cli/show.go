package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger/client"
)

func newShow(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show <vm>",
		Short: "Show everything about a VM, as JSON",
		Long: `Show a VM as JSON: what it was asked to be, how it runs, its last sample of statistics, its
workspace, what confines it and its network.`,
		Example: `  banger vm show devbox
  banger vm show devbox | jq -r .spec.memory_mib`,
		Args:              exactly("VM"),
		ValidArgsFunction: a.completeVMs(one, anyState),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				vm, err := c.VM(ctx, args[0])
				if err != nil {
					return err
				}
				return a.json(vm)
			})
		},
	}
	cmd.Flags().Bool("json", true, "print JSON; it is the only form")
	return cmd
}
