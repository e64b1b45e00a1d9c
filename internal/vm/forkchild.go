package vm

import (
	"context"
	"errors"
	"strings"
	"sync"

	"banger"
)

// child is a copy being made.
type child struct {
	row    banger.VM
	begin  begin
	work   context.Context // ends with errEnded when somebody comes to end this one
	unlock func()          // can be repeated

	busy sync.Mutex // held by who does something for it or decides what becomes of it
	kept bool       // it is acknowledged
	gone bool       // nothing is left of it
}

const removedMeanwhile = " was removed meanwhile"

// removed says whether somebody has come to end a child.
func (c *child) removed() bool { return errors.Is(context.Cause(c.work), errEnded) }

// attempt does something for a child unless somebody comes to end it. What fails then
// is no failure of the others.
func (c *child) attempt(ctx context.Context, do func(context.Context, *child) error) error {
	c.busy.Lock()
	defer c.busy.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.work, cancel)()
	if c.removed() {
		return nil
	}
	if err := do(ctx, c); !c.removed() {
		return err
	}
	return nil
}

// together does the same for all children at once. Once it failed for one, the
// others are of no use.
func together(ctx context.Context, children []*child, do func(context.Context, *child) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(children))
	var work sync.WaitGroup
	for i, c := range children {
		work.Go(func() {
			if errs[i] = c.attempt(ctx, do); errs[i] != nil {
				cancel()
			}
		})
	}
	work.Wait()
	return firstReal(errs)
}

// firstReal is the first error that is not the consequence of another one.
func firstReal(errs []error) error {
	for _, err := range errs {
		if err != nil && banger.CodeOf(err) != banger.Cancelled && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return errors.Join(errs...)
}

// acknowledge has those children stay that nobody has come to end: who comes later
// finds a VM.
func (m *Manager) acknowledge(ctx context.Context, children []*child) error {
	up, names := map[string]banger.Runtime{}, []string{}
	for _, c := range children {
		c.busy.Lock()
		defer c.busy.Unlock()
		if names = append(names, c.row.Name); !c.removed() {
			up[c.row.ID] = c.begin.runtime
		}
	}
	if len(up) == 0 {
		return banger.Errorf(banger.Cancelled, "%s", strings.Join(names, ", ")+removedMeanwhile)
	}
	if err := m.Store.SetStates(ctx, banger.StateRunning, up); err != nil {
		return err
	}
	for _, c := range children {
		if _, c.kept = up[c.row.ID]; !c.kept {
			continue
		}
		c.row.State = banger.StateRunning
		if l := m.liveOf(c.row.ID); l != nil {
			m.expectOwner(c.row, l)
		}
	}
	return nil
}

// giveUp removes a child for whoever came to end it, who need not wait for the others.
func (m *Manager) giveUp(ctx context.Context, c *child) {
	if c.removed() && m.discardFork(ctx, c, false) {
		c.unlock()
	}
}

// discardFork removes a child that was not acknowledged, or with all any, and says
// whether it is gone.
func (m *Manager) discardFork(ctx context.Context, c *child, all bool) bool {
	c.busy.Lock()
	defer c.busy.Unlock()
	if !c.gone && (all || !c.kept) {
		m.undo(ctx, c.row)
		c.gone = true
	}
	return c.gone
}

// letGo ends the work on children. Where it failed all of them are removed, and else
// those that somebody came to end.
func (m *Manager) letGo(ctx context.Context, children []*child, failed bool) {
	var work sync.WaitGroup
	for _, c := range children {
		work.Go(func() {
			m.discardFork(ctx, c, failed)
			c.unlock()
		})
	}
	work.Wait()
}
