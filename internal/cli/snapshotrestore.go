package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/api"
)

type snapshotRestoreOptions struct {
	app   *app
	force bool
}

func newSnapshotRestore(a *app) *cobra.Command {
	o := &snapshotRestoreOptions{app: a}
	cmd := &cobra.Command{
		Use:   "restore <vm> <snapshot>",
		Short: "Take a VM back to a snapshot",
		Long: `Take a VM back to a snapshot: what it is now is lost. It runs afterwards where the snapshot has its
memory, and is stopped where not. For a VM that runs banger asks first; where nobody can be asked, it
is refused without -f.`,
		Example: `  banger vm snapshot restore devbox before-upgrade
  banger vm snapshot restore -f devbox before-upgrade`,
		Args:              exactly("VM", "snapshot"),
		ValidArgsFunction: a.completeSnapshots(one),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error { return o.run(ctx, c, args[0], args[1]) })
		},
	}
	cmd.Flags().BoolVarP(&o.force, "force", "f", false, "do not ask")
	return cmd
}

func (o *snapshotRestoreOptions) run(ctx context.Context, c *client.Client, ref, snapshot string) error {
	vm, err := c.VM(ctx, ref)
	if err != nil {
		return err
	}
	all, err := c.Snapshots(ctx, vm.ID)
	if err != nil {
		return err
	}
	s, err := banger.Resolve("snapshot", snapshot, all)
	if banger.CodeOf(err) == banger.NotFound {
		return banger.Errorf(banger.NotFound, "cannot restore %s: it has no snapshot %q", vm.Name, snapshot).
			Hint("banger vm snapshot list %s", vm.Name)
	}
	if err != nil {
		return banger.Wrap(err, "cannot restore %s", vm.Name)
	}
	force := o.force
	if !force && vm.State.Live() {
		if force, err = o.agreed(ctx, vm, s); err != nil || !force {
			return err
		}
	}
	p := o.app.progress()
	defer p.end()
	vm, err = c.RestoreSnapshot(ctx, vm.ID, s.ID, api.RestoreSnapshot{Force: force}, p.watch)
	if err != nil {
		return err
	}
	p.end()
	o.app.say("%s is at %s and %s", vm.Name, s.Name, vm.State)
	_, err = fmt.Fprintln(o.app.Out, vm.Name)
	return err
}

func (o *snapshotRestoreOptions) agreed(ctx context.Context, vm api.VM, s banger.Snapshot) (bool, error) {
	if !o.app.asks() {
		return false, badUsage("cannot ask whether to take %s back to %s while it is %s: there is no terminal", vm.Name, s.Name, vm.State).
			Hint("banger vm snapshot restore -f %s %s does it without asking", vm.Name, s.Name)
	}
	ok, err := o.app.ask(ctx, fmt.Sprintf("take %s back to %s? It is %s, and what it is now will be lost.", vm.Name, s.Name, vm.State))
	if err == nil && !ok {
		o.app.say("nothing was restored")
	}
	return ok, err
}
