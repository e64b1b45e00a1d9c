package shim

import (
	"context"
	"errors"
	"os"
	"time"

	"banger"
	"banger/internal/guestlink"
	"banger/internal/guestwire"
	"banger/internal/vmm"
)

// restoreLimit is how long a restored guest may take to answer. It answers in
// a few hundredths of a second, or never.
const restoreLimit = 20 * time.Second

// unfit is why a saved machine cannot be taken up, now or ever.
type unfit struct{ error }

func (u unfit) Unwrap() error { return u.error }

// bootFirst begins the VM: as the machine that was saved, or from the start.
func (s *supervisor) bootFirst(ctx context.Context) error {
	defer func() {
		if s.memory != nil {
			_ = s.memory.Close()
		}
	}()
	r := s.launch.Restore
	if r == nil || !r.Suspended {
		// What runs now is not that machine, and changes its disk.
		if err := s.dropSuspended(); err != nil {
			return fileError(err, "cannot remove the suspended machine")
		}
	}
	if r == nil {
		return s.bootVMM(ctx)
	}
	err := s.takeUp(ctx, *r)
	var never unfit
	switch {
	case err == nil || ctx.Err() != nil:
		return err
	case r.Strict:
		return banger.Wrap(err, "the machine it is a copy of cannot be restored")
	case r.Suspended && !errors.As(err, &never):
		return banger.Errorf(banger.CodeOf(err), "the VM stays suspended: %w", err).
			Hint("banger vm start --cold %s boots it from its disk, without its memory", s.launch.Name)
	}
	s.refuse(err.Error())
	return s.bootVMM(ctx)
}

// takeUp takes up the machine that was saved.
func (s *supervisor) takeUp(ctx context.Context, r Restore) error {
	t := newTrace(s.launch)
	if r.Suspended {
		return s.takeUpSuspended(ctx, t)
	}
	what := RestoredFork
	if r.Template != "" {
		what = RestoredTemplate
	}
	return s.restoreVMM(ctx, what, r, s.memory, t)
}

func (s *supervisor) strict() bool { return s.launch.Restore != nil && s.launch.Restore.Strict }

// refuse notes why the saved machine was not taken up.
func (s *supervisor) refuse(why string) {
	s.log.Warn("the machine cannot be restored and is booted", "problem", why)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unfit = why
}

// restoreVMM takes a saved machine up. Its disk may have become larger, which
// the guest hears as soon as it runs.
func (s *supervisor) restoreVMM(ctx context.Context, what string, from Restore, memory *os.File, t *trace) error {
	if memory == nil || len(from.Token) != guestwire.TokenLen {
		return unfit{errors.New("its memory or its token is missing")}
	}
	cfg, err := s.config(ctx)
	if err != nil {
		return err
	}
	s.console.newBoot()
	out := s.io()
	out.Up = func() { t.mark("VMM") }
	machine, err := s.driver.Restore(ctx, cfg, vmm.Source{Memory: memory, State: from.State}, out)
	if banger.CodeOf(err) == banger.BadRequest {
		return unfit{err}
	}
	if err != nil {
		return err
	}
	t.mark("load")
	if size := s.launch.Setup.DiskBytes; size > 0 && size != from.DiskBytes {
		if err := machine.GrowDisk(ctx, diskSerial, size); err != nil {
			_ = machine.Signal(killSignal)
			<-machine.Done()
			_ = machine.Agent().Close()
			if c := machine.Cable(); c != nil {
				_ = c.Close()
			}
			return unfit{err} // it ran
		}
	}
	b := &boot{machine: machine, restored: what, template: from.Template, token: guestwire.NewToken(), trace: t}
	s.begun(b, func(b *boot) (*guestlink.Link, error) {
		conn, err := guestwire.Redial(b.machine.Agent(), [guestwire.TokenLen]byte(from.Token), b.token, nil)
		if err != nil {
			return nil, guestlink.Error(err)
		}
		return guestlink.Over(conn), nil
	})
	return nil
}

// grace is by how much a limit is longer for the guest of a VMM.
type grace func(pid int, limit time.Duration) time.Duration

// watchOver sees to it that somebody hears of a guest that does not come up. A
// restored one is ended: a template's is booted in its place, and soon; a
// machine there is no other of gets more time. All get more where the VMM itself waits
// for a processor. It is called with mu held.
func (s *supervisor) watchOver(b *boot) *time.Timer {
	limit := restoreLimit
	switch b.restored {
	case "":
		limit = s.launch.ReadyTimeout
	case RestoredSuspended, RestoredFork:
		limit = max(limit, s.launch.ReadyTimeout)
	}
	began := time.Now()
	return time.AfterFunc(limit, func() {
		within := limit + s.grace(b.machine.PID(), limit)
		switch {
		case s.waitOn(b, within-time.Since(began)):
		case b.restored == "":
			s.giveUp(b, within)
		case s.giveUpOn(b, limit):
			_ = b.machine.Signal(killSignal)
		}
	})
}

// waitOn gives a guest more time, and says whether there is any.
func (s *supervisor) waitOn(b *boot, more time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if more > 0 && b.link == nil {
		b.late.Reset(more) // with mu held: who finds it up stops the timer afterwards
	}
	return more > 0
}

// giveUpOn says whether a guest had its time and is not up, so that it is killed. One
// that stands still, paused or out of room, gets as much again.
func (s *supervisor) giveUpOn(b *boot, limit time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.boot != b || b.link != nil:
		return false
	case s.paused || s.full:
		b.late.Reset(limit) // with mu held: who finds it up stops the timer afterwards
		return false
	}
	b.killed = true
	return true
}
