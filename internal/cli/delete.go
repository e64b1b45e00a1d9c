package cli

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/api"
)

type deleteOptions struct {
	app   *app
	refs  []string
	force bool
}

func newDelete(a *app) *cobra.Command {
	o := &deleteOptions{app: a}
	cmd := &cobra.Command{
		Use:     "delete <vm>...",
		Aliases: []string{"rm"},
		Short:   "Delete VMs with their disks",
		Long: `Delete VMs and everything they hold. A VM that runs is refused without -f. Deleting what is not
there is no error.`,
		Example: `  banger rm devbox
  banger rm -f db1 db2`,
		Args:              atLeastOne("VM"),
		ValidArgsFunction: a.completeVMs(many, anyState),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.refs = args
			return a.with(cmd, o.run)
		},
	}
	cmd.Flags().BoolVarP(&o.force, "force", "f", false, "delete VMs that run too")
	return cmd
}

func (o *deleteOptions) run(ctx context.Context, c *client.Client) error {
	all, err := c.VMs(ctx)
	if err != nil {
		return err
	}
	targets := slices.DeleteFunc(resolveTargets(o.refs, all), func(t target) bool {
		gone := banger.CodeOf(t.err) == banger.NotFound
		if gone {
			o.app.say("no VM is called %q: nothing to delete", t.ref)
		}
		return gone
	})
	return o.app.eachTarget(ctx, targets, func(ctx context.Context, vm api.VM, _ *progress) error {
		return c.DeleteVM(ctx, vm.ID, o.force)
	})
}
