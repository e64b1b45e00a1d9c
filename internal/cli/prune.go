package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/api"
)

type pruneOptions struct {
	app   *app
	force bool
}

func newPrune(a *app) *cobra.Command {
	o := &pruneOptions{app: a}
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Delete all VMs that do not run",
		Long: `List the VMs in the states created, stopped and error, ask, and delete them. Where nobody can be
asked, nothing is deleted without -f.`,
		Example: `  banger vm prune
  banger vm prune -f`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.with(cmd, o.run) },
	}
	cmd.Flags().BoolVarP(&o.force, "force", "f", false, "do not ask")
	return cmd
}

func (o *pruneOptions) run(ctx context.Context, c *client.Client) error {
	all, err := c.VMs(ctx)
	if err != nil {
		return err
	}
	var targets []target
	for _, vm := range all {
		if prunable(vm) {
			targets = append(targets, target{ref: vm.ID, vm: vm})
			o.app.say("%s is %s (disk %s)", vm.Name, vm.State, banger.ApproxSize(vm.Stats.DiskUsedBytes))
		}
	}
	if len(targets) == 0 {
		o.app.say("there is nothing to prune")
		return nil
	}
	if ok, err := o.agreed(ctx, len(targets)); err != nil || !ok {
		return err
	}
	return o.app.eachTarget(ctx, targets, func(ctx context.Context, vm api.VM, _ *progress) error {
		return c.DeleteVM(ctx, vm.ID, false) // not forced: one that was started meanwhile stays
	})
}

// prunable says whether prune takes a VM: another tool's rows are left to
// explicit deletion.
func prunable(vm api.VM) bool {
	return !vm.Foreign && slices.Contains([]banger.State{banger.StateCreated, banger.StateStopped, banger.StateError}, vm.State)
}

func (o *pruneOptions) agreed(ctx context.Context, n int) (bool, error) {
	if o.force {
		return true, nil
	}
	if !o.app.asks() {
		return false, badUsage("cannot ask whether to delete %d VMs: there is no terminal", n).
			Hint("banger vm prune -f deletes them without asking")
	}
	ok, err := o.app.ask(ctx, fmt.Sprintf("delete %d VMs?", n))
	if err == nil && !ok {
		o.app.say("nothing was deleted")
	}
	return ok, err
}
