package cli

import (
	"context"

	"banger"
	"banger/client"
	"banger/internal/api"
	"banger/internal/patch"
	"banger/internal/paths"
	"banger/internal/shim"
	"banger/internal/workspace"
)

// follow looks whether the host has moved on to another commit since a
// repository was brought in: a warning, or with --auto-prepare another prepare.
func (o *execOptions) follow(ctx context.Context, c *client.Client, vm api.VM, sh *shim.Client) (api.VM, error) {
	w := vm.Workspace
	if w.IsZero() || o.guestPath != "" {
		return vm, nil
	}
	head, err := workspace.Head(ctx, w)
	if err != nil || head == w.HeadCommit {
		return vm, nil // the repository may be gone, which is no concern of a command's
	}
	if !o.autoPrepare {
		o.app.warn("%s is at %s, the VM %s was given %s", w.SourcePath, shortCommit(head), vm.Name, shortCommit(w.HeadCommit))
		o.app.hint("banger vm workspace prepare %s %s brings it up to date; so does --auto-prepare", vm.Name, banger.ShellWord(w.SourcePath))
		return vm, nil
	}
	plan, err := o.app.replan(ctx, w)
	if err != nil {
		return vm, ours{banger.Wrap(err, "cannot bring %s up to date", vm.Name)}
	}
	b := &bringing{app: o.app, plan: plan, guestPath: w.GuestPath, user: w.User}
	b.begin(ctx, false)
	defer b.end()
	vm, err = b.deliver(ctx, c, vm, sh)
	if err != nil {
		err = ours{err}
	}
	return vm, err
}

// replan looks at a repository that was brought in before, asked for as then.
func (a *app) replan(ctx context.Context, w banger.Workspace) (*workspace.Plan, error) {
	a.recoverApplies()
	return workspace.NewPlan(ctx, workspace.Again(w))
}

// recoverApplies takes back what applies that were killed left half-done in a work
// tree, before anybody looks at one.
func (a *app) recoverApplies() {
	dirs, err := paths.FromEnv()
	if err == nil {
		err = patch.Recover(dirs.Applies(), func(said string) { a.warn("%s", said) })
	}
	if err != nil {
		a.fail(err)
	}
}
