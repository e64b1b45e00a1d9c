package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/workspace"
)

func newWorkspaceStatus(a *app) *cobra.Command {
	out := false
	cmd := &cobra.Command{
		Use:   "status <vm>",
		Short: "Show what of a repository differs between you and a VM",
		Example: `  banger vm workspace status devbox
  banger vm workspace status . --json`,
		Args:              exactly("VM"),
		ValidArgsFunction: a.completeVMs(one, wakes),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				d, err := a.drift(ctx, c, args[0])
				if err != nil {
					return err
				}
				if out {
					return a.json(d)
				}
				a.printDrift(d)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&out, "json", false, "print JSON")
	return cmd
}

// drifted is a workspace with what differs from it on both sides.
type drifted struct {
	VM string `json:"vm"`
	banger.Workspace
	workspace.Drift
}

func (a *app) drift(ctx context.Context, c *client.Client, ref string) (*drifted, error) {
	vm, err := c.VM(ctx, ref)
	if err != nil {
		return nil, err
	}
	if vm.Workspace.IsZero() {
		return nil, banger.Errorf(banger.NotFound, "no repository was brought into %s", vm.Name).
			Hint("banger vm workspace prepare %s PATH", vm.Name)
	}
	vm, sh, err := a.reach(ctx, c, vm.ID)
	if err != nil {
		return nil, err
	}
	defer sh.Close()
	plan, err := a.replan(ctx, vm.Workspace)
	if err != nil {
		return nil, err
	}
	cargo, err := plan.Load(ctx)
	if err != nil {
		return nil, err
	}
	defer cargo.Close()
	d, err := cargo.Compare(ctx, workspace.Target{
		Guest: workspaceGuest{guestRunner{sh, vm.Workspace.User}, a, vm.Name}, Path: vm.Workspace.GuestPath, Home: guestHome, Record: vm.Workspace,
	})
	return &drifted{vm.Name, vm.Workspace, d}, err
}

func (a *app) printDrift(d *drifted) {
	t := newTable("SIDE", "CHANGE", "PATH")
	for _, c := range d.Here {
		t.row("here", kindWord(c.Kind), c.Path)
	}
	for _, c := range d.There {
		t.row("guest", kindWord(c.Kind), c.Path)
	}
	a.print(t)
	if d.Head != d.HeadCommit {
		a.say("you are at %s, the VM was given %s", shortCommit(d.Head), shortCommit(d.HeadCommit))
	}
	if d.GuestHead != d.HeadCommit {
		a.say("the VM is at %s, it was given %s", shortCommit(d.GuestHead), shortCommit(d.HeadCommit))
	}
	if len(d.Here)+len(d.There) == 0 {
		a.say("neither side has changed a file since %s", d.PreparedAt.Local().Format("2006-01-02 15:04:05"))
	}
}

func kindWord(kind string) string {
	return map[string]string{"M": "changed", "A": "added", "D": "deleted"}[kind]
}

func shortCommit(id string) string {
	if id == "" {
		return "no commit"
	}
	return id[:min(12, len(id))]
}
