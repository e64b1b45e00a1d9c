package vm

import (
	"context"
	"strings"
	"syscall"
	"time"

	"banger"
	"banger/internal/shim"
)

// change runs do on a VM of ours that nobody else changes meanwhile. verb is
// for errors, as in "stop".
func (m *Manager) change(ctx context.Context, id, verb string, do func(row banger.VM) error) (View, error) {
	unlock, err := m.locks.lock(ctx, id)
	if err != nil {
		return View{}, err
	}
	defer unlock()
	if err := m.finishRestore(ctx, id); err != nil {
		return View{}, err
	}
	row, err := m.Store.VM(ctx, id)
	if err != nil {
		return View{}, err
	}
	if foreign(row) {
		err = banger.Errorf(banger.Conflict, "another tool made it, with its own disk layout").
			Hint("banger vm delete %s forgets it; its files stay", row.Name)
	} else {
		err = do(row)
	}
	if err != nil {
		return View{}, banger.Wrap(cancelled(ctx, err), "cannot %s %s", verb, row.Name)
	}
	return m.Get(ctx, id)
}

// DefaultStopTimeout is how long a guest's processes may take to end.
const DefaultStopTimeout = 10 * time.Second

// Stop implements Service. A VM that does not run is left as it is, but a
// suspended one is resumed first: what its guest has not written yet counts
// as written.
func (m *Manager) Stop(ctx context.Context, id string, timeout time.Duration, p Progress) (View, error) {
	return m.change(ctx, id, "stop", func(row banger.VM) error { return m.stop(ctx, row, timeout, p) })
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
	return m.change(ctx, id, "restart", func(row banger.VM) error {
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

// Kill implements Service. A suspended VM loses its memory.
func (m *Manager) Kill(ctx context.Context, id, signal string) (View, error) {
	sig, known := signals[strings.TrimPrefix(signal, "SIG")]
	if !known {
		return View{}, banger.Errorf(banger.BadRequest, "bad signal %q: it must be KILL, TERM or INT", signal)
	}
	return m.change(ctx, id, "kill", func(row banger.VM) error {
		l, err := m.attach(ctx, row)
		if err != nil {
			return err
		}
		if l == nil {
			return m.killSuspended(ctx, row)
		}
		err = m.end(ctx, row, func(s Shim) (shim.Exit, error) { return s.Kill(ctx, sig) })
		if banger.CodeOf(err) == banger.Unavailable && sig == syscall.SIGKILL {
			return m.killShim(ctx, row)
		}
		return err
	})
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
	return m.change(ctx, id, verb, func(row banger.VM) error {
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
	return m.change(ctx, id, "rename", func(row banger.VM) error {
		row.Name = name
		return m.rewrite(ctx, row)
	})
}

// rewrite saves a changed row and then its record. A crash in between is put
// right by Reconcile: the row wins.
func (m *Manager) rewrite(ctx context.Context, row banger.VM) error {
	if err := m.Store.UpsertVM(ctx, row); err != nil {
		return err
	}
	dir := m.Dirs.VM(row.ID)
	if !ours(dir, row.ID) {
		return nil
	}
	return hold(dir, row)
}

// Keep implements Service.
func (m *Manager) Keep(ctx context.Context, id string) (View, error) {
	return m.change(ctx, id, "keep", func(row banger.VM) error { return m.keep(ctx, row) })
}

// keep saves first: a VM that stays too long can be deleted, one that went
// cannot be had back.
func (m *Manager) keep(ctx context.Context, row banger.VM) error {
	row.Spec.Ephemeral = false
	if err := m.rewrite(ctx, row); err != nil {
		return err
	}
	l := m.liveOf(row.ID)
	if l == nil {
		return nil
	}
	s, err := m.answering(ctx, l)
	if err != nil {
		return err
	}
	return s.Keep(ctx)
}
