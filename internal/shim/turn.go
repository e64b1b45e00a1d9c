package shim

import (
	"context"

	"banger"
)

// turn lets one at a time change whether the machine runs, or save it.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// take waits for the turn; done gives it to the next.
func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return banger.Errorf(banger.Busy, "the VM is being saved, or halted: %w", context.Cause(ctx))
	}
}

func (t turn) done() { <-t }

// hold is a turn for something that takes long, and a VM that is up for it.
// What ends the VM ends ctx.
type hold struct {
	*boot
	ctx    context.Context
	paused bool
	token  []byte // of the link to its guest
	done   func()
}

// hold waits until the guest is up and takes the turn.
func (s *supervisor) hold(ctx context.Context) (*hold, error) {
	if err := s.awaitUp(ctx); err != nil {
		return nil, err
	}
	if err := s.turn.take(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if up, err := s.isUp(); err != nil || !up {
		s.turn.done()
		if err == nil {
			err = banger.Errorf(banger.Unavailable, "its guest is rebooting")
		}
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	s.interrupt = cancel
	h := &hold{boot: s.boot, ctx: ctx, paused: s.paused || s.full, token: s.boot.token[:]}
	h.done = func() {
		cancel()
		s.mu.Lock()
		s.interrupt = nil
		s.mu.Unlock()
		s.turn.done()
	}
	return h, nil
}

// awaitUp waits until the guest is up, for as long as streams wait for it.
func (s *supervisor) awaitUp(ctx context.Context) error {
	for {
		s.mu.Lock()
		up, err := s.isUp()
		changed := s.changed
		s.mu.Unlock()
		if up || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return banger.Errorf(banger.Cancelled, "%w", context.Cause(ctx))
		}
	}
}

// isUp says whether the guest can be spoken to, or could if it were not
// paused, with mu held; an error is why it will not be.
func (s *supervisor) isUp() (bool, error) {
	switch b := s.boot; {
	case s.exit != nil || s.asked != "":
		return false, s.notRunning()
	case b.problem != "":
		return false, banger.Errorf(banger.Unavailable, "cannot reach its guest: %s", b.problem).
			Hint("banger vm logs %s", s.launch.Name)
	case b.link != nil:
		return true, nil
	case s.full:
		return false, banger.Errorf(banger.NoSpace, "its guest is not up yet: %s", s.standstill())
	case s.paused:
		return false, banger.Errorf(banger.Unavailable, "it was paused before its guest was up").
			Hint("banger vm resume %s", s.launch.Name)
	}
	return false, nil
}
