package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/api"
)

func newSnapshot(a *app) *cobra.Command {
	return newGroup(a, "snapshot", "Keep VMs as they are at a moment, and go back to it",
		newSnapshotCreate(a), newSnapshotList(a), newSnapshotRestore(a), newSnapshotDelete(a))
}

func newSnapshotCreate(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "create <vm> [name]",
		Short: "Keep a VM as it is now",
		Long: `Keep the disk of a VM, and its memory too when it runs; the VM goes on. The name of the snapshot is
printed; without one it is made from the time.`,
		Example: `  banger vm snapshot create devbox
  banger vm snapshot create devbox before-upgrade`,
		Args:              between("VM", "name"),
		ValidArgsFunction: a.completeVMs(one, anyState),
		RunE: func(cmd *cobra.Command, args []string) error {
			var req api.CreateSnapshot
			if len(args) > 1 {
				req.Name = args[1]
				if err := banger.ValidateSnapshotName(req.Name); err != nil {
					return err
				}
			}
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				p := a.progress()
				defer p.end()
				s, err := c.CreateSnapshot(ctx, args[0], req, p.watch)
				if err == nil {
					p.end()
					_, err = fmt.Fprintln(a.Out, s.Name)
				}
				return err
			})
		},
	}
}

// between asks for one argument and takes a second.
func between(first, second string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < 2 {
			return exactly(first)(cmd, args)
		}
		return exactly(first, second)(cmd, args)
	}
}

func newSnapshotList(a *app) *cobra.Command {
	var out listFlags
	cmd := &cobra.Command{
		Use:     "list <vm>",
		Aliases: []string{"ls"},
		Short:   "List the snapshots of a VM",
		Long: `List the snapshots of a VM. MEMORY says whether the VM runs on once a snapshot is restored, PARENT
which snapshot the VM was at before.`,
		Example: `  banger vm snapshot list devbox
  banger vm snapshot list devbox --json`,
		Args:              exactly("VM"),
		ValidArgsFunction: a.completeVMs(one, anyState),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				all, err := c.Snapshots(ctx, args[0])
				if err != nil {
					return err
				}
				return a.showSnapshots(all, out)
			})
		},
	}
	out.register(cmd, "ids")
	return cmd
}

func (a *app) showSnapshots(all []banger.Snapshot, out listFlags) error {
	switch {
	case out.quiet:
		for _, s := range all {
			fmt.Fprintln(a.Out, s.ID)
		}
		return nil
	case out.json:
		if all == nil {
			all = []banger.Snapshot{}
		}
		return a.json(all)
	}
	a.print(snapshotTable(all, time.Now()))
	return nil
}

func snapshotTable(all []banger.Snapshot, now time.Time) *table {
	names := map[string]string{}
	for _, s := range all {
		names[s.ID] = s.Name
	}
	t := newTable("ID", "NAME", "CREATED", "SIZE", "MEMORY", "PARENT")
	for _, s := range all {
		memory, parent := "no", names[s.Parent]
		if s.Memory {
			memory = "yes"
		}
		if parent == "" {
			parent = banger.ShortID(s.Parent) // it was deleted since
		}
		t.row(banger.ShortID(s.ID), s.Name, age(s.CreatedAt, now), banger.ApproxSize(s.SizeBytes), memory, parent)
	}
	return t
}

func newSnapshotDelete(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "delete <vm> <snapshot>...",
		Aliases: []string{"rm"},
		Short:   "Delete snapshots of a VM",
		Long:    `Delete snapshots of a VM. The VM and its other snapshots stay as they are.`,
		Example: `  banger vm snapshot delete devbox before-upgrade`,
		Args: func(cmd *cobra.Command, args []string) error {
			return exactly("VM", "snapshot")(cmd, args[:min(len(args), 2)])
		},
		ValidArgsFunction: a.completeSnapshots(many),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				vm, err := c.VM(ctx, args[0])
				if err != nil {
					return err
				}
				return a.eachName(ctx, unique(args[1:]), func(ctx context.Context, name string) error {
					return c.DeleteSnapshot(ctx, vm.ID, name)
				})
			})
		},
	}
}

// unique drops repeats.
func unique(list []string) (once []string) {
	for _, s := range list {
		if !slices.Contains(once, s) {
			once = append(once, s)
		}
	}
	return once
}
