package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/api"
)

func newRename(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "rename <vm> <name>",
		Short:             "Give a VM another name",
		Example:           `  banger vm rename brisk-otter devbox`,
		Args:              exactly("VM", "new name"),
		ValidArgsFunction: a.completeVMs(one, anyState),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[1]
			if err := banger.ValidateVMName(name); err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				vm, err := c.ChangeVM(ctx, args[0], api.ChangeVM{Name: &name})
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(a.Out, vm.Name)
				return err
			})
		},
	}
}
