package vm

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"time"

	"banger"
	"banger/internal/shim"
)

// change runs do on a VM of ours that nobody else changes meanwhile. verb is
// for errors, as in "stop". Somebody who comes to end the VM ends do's ctx.
func (m *Manager) change(ctx context.Context, id, verb string, do func(ctx context.Context, row banger.VM) error) (View, error) {
	work, unlock, err := m.locks.lockWork(ctx, id)
	if err != nil {
		return View{}, err
	}
	defer unlock()
	row, err := m.changeLocked(work, id, verb, do)
	if err != nil {
		return View{}, err
	}
	return m.viewAfter(ctx, row)
}

// viewAfter is how a VM is after a change that went well, of which row is how it was
// before. That is told also to a request which has ended meanwhile: cancelled is what
// was not done. An ephemeral VM that ended is gone: the last that can be said is that
// it was stopped.
func (m *Manager) viewAfter(ctx context.Context, row banger.VM) (View, error) {
	ctx = context.WithoutCancel(ctx)
	v, err := m.Get(ctx, row.ID)
	if !row.Spec.Ephemeral || banger.CodeOf(err) != banger.NotFound {
		return v, err
	}
	return m.lastView(ctx, row)
}

// lastView is a VM that is gone, as it was at its end.
func (m *Manager) lastView(ctx context.Context, row banger.VM) (View, error) {
	names, err := m.imageNames(ctx)
	row.State = banger.StateStopped
	return View{VM: row, ImageName: or(names[row.ImageID], row.ImageID)}, err
}

// changeLocked is change for who has the VM's lock. It gives the row it began with.
func (m *Manager) changeLocked(ctx context.Context, id, verb string, do func(ctx context.Context, row banger.VM) error) (row banger.VM, err error) {
	if err := m.finishRestore(ctx, id); err != nil {
		return row, err
	}
	if row, err = m.Store.VM(ctx, id); err != nil {
		return row, err
	}
	if foreign(row) {
		err = banger.Errorf(banger.Conflict, "another tool made it, with its own disk layout").
			Hint("banger vm delete %s forgets it; its files stay", row.Name)
	} else {
		err = do(ctx, row)
	}
	return row, banger.Wrap(cancelled(ctx, err), "cannot %s %s", verb, row.Name)
}

// DefaultStopTimeout is how long a guest's processes may take to end.
const DefaultStopTimeout = 10 * time.Second

// Stop implements Service. A VM that does not run is left as it is, but a
// suspended one is resumed first: what its guest has not written yet counts
// as written.
func (m *Manager) Stop(ctx context.Context, id string, timeout time.Duration, p Progress) (View, error) {
	return m.change(ctx, id, "stop", func(ctx context.Context, row banger.VM) error {
		err := m.stop(ctx, row, timeout, p)
		if row.Spec.Ephemeral && errors.Is(context.Cause(ctx), errEnded) {
			return nil // its command saw it end and came to remove it
		}
		return err
	})
}

func (m *Manager) stop(ctx context.Context, row banger.VM, timeout time.Duration, p Progress) error {
	if timeout <= 0 {
		timeout = DefaultStopTimeout
	}
	if err := m.wake(ctx, row, p); err != nil {
		return err
	}
	return m.end(ctx, row, func(s Shim) (shim.Exit, error) {
		p.Stage("stop guest")
		return s.Stop(ctx, timeout)
	})
}

// Restart implements Service.
func (m *Manager) Restart(ctx context.Context, id string, timeout time.Duration, p Progress) (View, error) {
	return m.change(ctx, id, "restart", func(ctx context.Context, row banger.VM) error {
		if err := refuseEphemeral(row); err != nil {
			return err
		}
		if err := m.stop(ctx, row, timeout, p); err != nil {
			return err
		}
		row, err := m.Store.VM(ctx, id)
		if err != nil {
			return err
		}
		return m.start(ctx, row, false, true, p)
	})
}

// signals are those Kill takes.
var signals = map[string]syscall.Signal{"": syscall.SIGKILL, "KILL": syscall.SIGKILL, "TERM": syscall.SIGTERM, "INT": syscall.SIGINT}

// Kill implements Service. A suspended VM loses its memory. Whatever else is being
// done to the VM is broken off.
func (m *Manager) Kill(ctx context.Context, id, signal string) (View, error) {
	sig, known := signals[strings.TrimPrefix(signal, "SIG")]
	if !known {
		return View{}, banger.Errorf(banger.BadRequest, "bad signal %q: it must be KILL, TERM or INT", signal)
	}
	was, err := m.Store.VM(ctx, id)
	if err != nil {
		return View{}, err
	}
	cut := false
	unlock, err := m.locks.lockEnd(ctx, id, func() { cut = m.cutPower(ctx, id, sig) })
	if err != nil {
		return View{}, err
	}
	defer unlock()
	row, err := m.changeLocked(ctx, id, "kill", func(ctx context.Context, row banger.VM) error { return m.kill(ctx, row, sig, cut) })
	if was.Runtime.Creating && banger.CodeOf(err) == banger.NotFound {
		return m.lastView(ctx, was) // whoever was making it has undone that
	}
	if err != nil {
		return View{}, err
	}
	return m.viewAfter(ctx, row)
}

// kill ends a VM; cut says that this has been done.
func (m *Manager) kill(ctx context.Context, row banger.VM, sig syscall.Signal, cut bool) error {
	l, err := m.attach(ctx, row)
	if err != nil {
		return err
	}
	if l == nil {
		err := m.killSuspended(ctx, row)
		if cut && banger.CodeOf(err) == banger.NotRunning {
			return nil
		}
		return err
	}
	err = m.end(ctx, row, func(s Shim) (shim.Exit, error) { return s.Kill(ctx, sig) })
	if banger.CodeOf(err) == banger.Unavailable && sig == syscall.SIGKILL {
		return m.killShim(ctx, row)
	}
	return err
}

// cutPower ends what runs of a VM that somebody is at work on, and says whether it
// did. Whoever has the VM's lock next records it.
func (m *Manager) cutPower(ctx context.Context, id string, sig syscall.Signal) bool {
	l := m.liveOf(id)
	if l == nil {
		return false
	}
	s, err := l.shim()
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, m.shimTimeout) // it may be stopped
	defer cancel()
	exit, err := s.Kill(ctx, sig)
	if err == nil {
		l.finish(exit)
	}
	return err == nil
}

// killShim ends a VM whose shim does not answer.
func (m *Manager) killShim(ctx context.Context, row banger.VM) error {
	if err := m.Shims.KillRecorded(ctx, m.Dirs.VM(row.ID)); err != nil {
		return err
	}
	return m.recordEnd(ctx, row.ID, &shim.Exit{Reason: shim.ReasonKilled, At: time.Now()})
}

// end asks the shim to end the VM, where it runs, and records how it did.
func (m *Manager) end(ctx context.Context, row banger.VM, ask func(Shim) (shim.Exit, error)) error {
	l, err := m.attach(ctx, row)
	if err != nil || l == nil {
		return err
	}
	s, err := m.answering(ctx, l)
	if err != nil {
		return err
	}
	exit, err := ask(s)
	switch {
	case err == nil:
		l.finish(exit)
		return m.recordEnd(ctx, row.ID, &exit)
	case banger.CodeOf(err) == banger.Busy: // it is there, and goes on
	case ctx.Err() == nil && m.wentAway(ctx, l):
		return m.recordEnd(ctx, row.ID, nil) // it ended by itself at the same time
	}
	return err
}

// wentAway says whether the shim ended just now.
func (m *Manager) wentAway(ctx context.Context, l *live) bool {
	ctx, cancel := context.WithTimeout(ctx, m.shimTimeout)
	defer cancel()
	_, err := l.await(ctx, func(s shim.Status) bool { return s.State == shim.Ended })
	return err == nil
}

// answering is the connection to l's shim. One that was only just adopted may
// not be there yet.
func (m *Manager) answering(ctx context.Context, l *live) (Shim, error) {
	ctx, cancel := context.WithTimeout(ctx, m.shimTimeout)
	defer cancel()
	_, _ = l.await(ctx, func(shim.Status) bool { return true })
	return l.shim()
}

// Pause implements Service.
func (m *Manager) Pause(ctx context.Context, id string) (View, error) {
	return m.halt(ctx, id, "pause", Shim.Pause)
}

// Resume implements Service. A VM that is not paused is left alone.
func (m *Manager) Resume(ctx context.Context, id string) (View, error) {
	return m.halt(ctx, id, "resume", Shim.Resume)
}

func (m *Manager) halt(ctx context.Context, id, verb string, ask func(Shim, context.Context) error) (View, error) {
	return m.change(ctx, id, verb, func(ctx context.Context, row banger.VM) error {
		l, err := m.attach(ctx, row)
		if err != nil || l == nil {
			return notRunning(err, row)
		}
		s, err := m.answering(ctx, l)
		if err != nil {
			return err
		}
		if err := ask(s, ctx); err != nil {
			return err
		}
		return m.refresh(ctx, l, s)
	})
}

// refresh asks the shim how it is now, rather than wait for its report.
func (m *Manager) refresh(ctx context.Context, l *live, s Shim) error {
	status, err := s.Status(ctx)
	if err == nil {
		l.report(status)
	}
	return err
}

func notRunning(err error, row banger.VM) error {
	if err != nil {
		return err
	}
	if row.State == banger.StateSuspended {
		return banger.Errorf(banger.NotRunning, "it is suspended").Hint("banger vm start %s", row.Name)
	}
	return banger.Errorf(banger.NotRunning, "it is not running").Hint("banger vm start %s", row.Name)
}

// Rename implements Service. A running guest learns its name at its next
// start.
func (m *Manager) Rename(ctx context.Context, id, name string) (View, error) {
	if err := banger.ValidateVMName(name); err != nil {
		return View{}, err
	}
	return m.change(ctx, id, "rename", func(ctx context.Context, row banger.VM) error {
		row.Name = name
		if err := m.rewrite(ctx, row); err != nil {
			return err
		}
		if err := m.HostKeys.Rename(id, name); err != nil { // which HostKey makes good
			m.Log.Warn("cannot rename a host key", "vm", id, "err", err)
		}
		return nil
	})
}

// SetWorkspace implements Service.
func (m *Manager) SetWorkspace(ctx context.Context, id string, w banger.Workspace) (View, error) {
	return m.change(ctx, id, "note the workspace of", func(ctx context.Context, row banger.VM) error {
		if err := m.Store.SetWorkspace(ctx, id, w); err != nil {
			return err
		}
		row.Workspace = w
		return m.holdOurs(row)
	})
}

// rewrite saves a changed row and then its record. A crash in between is put
// right by Reconcile: the row wins.
func (m *Manager) rewrite(ctx context.Context, row banger.VM) error {
	if err := m.Store.UpsertVM(ctx, row); err != nil {
		return err
	}
	return m.holdOurs(row)
}

// amend rewrites the spec of a row as the row is by now: whoever began with it may have
// recorded since that its VM ended, or that one is gone. The VM is locked.
func (m *Manager) amend(ctx context.Context, id string, change func(*banger.Spec)) (banger.VM, error) {
	row, err := m.Store.VM(ctx, id)
	if err != nil {
		return row, err
	}
	change(&row.Spec)
	return row, m.rewrite(ctx, row)
}

// holdOurs writes a VM's record where its directory is ours.
func (m *Manager) holdOurs(row banger.VM) error {
	dir := m.Dirs.VM(row.ID)
	if !ours(dir, row.ID) {
		return nil
	}
	return hold(dir, row)
}

// Keep implements Service.
func (m *Manager) Keep(ctx context.Context, id string) (View, error) {
	return m.change(ctx, id, "keep", func(ctx context.Context, row banger.VM) error { return m.keep(ctx, row) })
}

// keep saves first: a VM that stays too long can be deleted, one that went
// cannot be had back.
func (m *Manager) keep(ctx context.Context, row banger.VM) error {
	row.Spec.Ephemeral = false
	if err := m.rewrite(ctx, row); err != nil {
		return err
	}
	l, err := m.attach(ctx, row)
	if err != nil || l == nil {
		return err
	}
	s, err := m.answering(ctx, l)
	if err != nil {
		return err
	}
	return s.Keep(ctx)
}
