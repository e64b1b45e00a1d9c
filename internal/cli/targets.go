package cli

import (
	"context"
	"fmt"
	"sync"

	"banger/client"
	"banger/internal/api"
)

// target is one reference of a command line and the VM it means.
type target struct {
	ref string
	vm  api.VM
	err error
}

// resolveTargets finds what references mean in one snapshot. A VM that is
// meant twice is named once, where it came first.
func resolveTargets(refs []string, all []api.VM) []target {
	var targets []target
	seen := map[string]bool{}
	for _, ref := range refs {
		vm, err := client.Resolve(ref, all)
		key := vm.ID
		if err != nil {
			key = "?" + ref
		}
		if !seen[key] {
			seen[key] = true
			targets = append(targets, target{ref, vm, err})
		}
	}
	return targets
}

// each acts on the VMs that references mean: on all at once, and on the valid
// ones even when others are wrong. It prints the names of those that went
// well, in the order given, and complains of the others.
func (a *app) each(ctx context.Context, c *client.Client, refs []string, act func(context.Context, api.VM, *progress) error) error {
	all, err := c.VMs(ctx)
	if err != nil {
		return err
	}
	return a.eachTarget(ctx, resolveTargets(refs, all), act)
}

func (a *app) eachTarget(ctx context.Context, targets []target, act func(context.Context, api.VM, *progress) error) error {
	a.actOn(ctx, targets, act)
	for _, t := range targets {
		if t.err == nil {
			fmt.Fprintln(a.Out, t.vm.Name)
		}
	}
	return a.complain(ctx, targets)
}

// actOn acts on the valid targets, on all at once, and notes what became of it.
func (a *app) actOn(ctx context.Context, targets []target, act func(context.Context, api.VM, *progress) error) {
	p := a.progress()
	defer p.end()
	var done sync.WaitGroup
	for i := range targets {
		t := &targets[i]
		if t.err == nil {
			done.Go(func() { t.err = act(ctx, t.vm, p.of(t.vm.Name, len(targets))) })
		}
	}
	done.Wait()
}

// complain tells of the targets that did not go well.
func (a *app) complain(ctx context.Context, targets []target) error {
	failed := 0
	for _, t := range targets {
		if t.err == nil {
			continue
		}
		failed++
		if err := interrupted(ctx, t.err); isInterrupt(err) {
			return err
		}
		a.fail(t.err)
	}
	if failed > 0 {
		return statusError(exitFailed)
	}
	return nil
}

// eachName acts on names one after the other, and on the rest when one fails.
func (a *app) eachName(ctx context.Context, names []string, act func(context.Context, string) error) error {
	failed := false
	for _, name := range names {
		err := act(ctx, name)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			failed = true
			a.fail(err)
		default:
			fmt.Fprintln(a.Out, name)
		}
	}
	if failed {
		return statusError(exitFailed)
	}
	return nil
}
