package shim

import (
	"context"
	"time"

	"banger"
	"banger/internal/guestlink"
	"banger/internal/guestwire"
)

// A VM is in use while a stream to its guest is open: a command, a session, a copy, a
// connection to one of its ports, or a command runs in it that was detached. It is
// touched at the beginning and end of each, when its guest and somebody outside have
// something for each other, and when somebody resumes or saves it.
// Others decide what follows from that; a VM that they want to end if it is idle is
// looked at by its shim once more, at the moment from which nobody is let in any more.

// isUse says whether a stream of that kind is a use of the VM. Questions to the agent,
// how the guest is for one, are none.
func isUse(k guestwire.Kind) bool { return k != guestwire.KindCall }

// count counts streams to the guest.
func (s *supervisor) count(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams += n
	s.touched = time.Now()
}

func (s *supervisor) touch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.touched = time.Now()
}

func ifIdle(d time.Duration) IfIdle { return IfIdle{max(1, d.Milliseconds())} }

// unattendedTimeout bounds the question for commands that nobody is connected to.
const unattendedTimeout = 10 * time.Second

// noticeUnattended touches the VM if commands run in it that were detached, or did so
// lately. Only the guest knows; it is asked just before a VM ends for being idle, and
// never else, since that would wake it. One begun after the answer touches by its
// own stream. A paused VM's stand still, and an agent of an earlier build knows of none.
func (s *supervisor) noticeUnattended(ctx context.Context, idle IfIdle) error {
	s.mu.Lock()
	link, asks := s.boot.link, idle.Millis > 0 && s.state() == Running
	s.mu.Unlock()
	if !asks || link == nil {
		return nil
	}
	ended, err := lastUnattended(ctx, link)
	s.mu.Lock()
	defer s.mu.Unlock()
	if ended.After(s.touched) {
		s.touched = ended
	}
	return err
}

// longAgo bounds what a guest says of the past, which would come round to the future.
const longAgo = 100 * 365 * 24 * time.Hour

// lastUnattended is when a command last ran that nobody was connected to, zero for
// never.
func lastUnattended(ctx context.Context, link *guestlink.Link) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, unattendedTimeout)
	defer cancel()
	u, err := link.Unattended(ctx)
	switch {
	case banger.CodeOf(err) == banger.UnknownMethod:
		return time.Time{}, nil
	case err != nil:
		return time.Time{}, banger.Wrap(err, "cannot tell whether commands run in it")
	case u.Running > 0:
		return time.Now(), nil
	case u.EndedMillis > 0:
		ago := time.Duration(min(u.EndedMillis, longAgo.Milliseconds())) * time.Millisecond
		return time.Now().Add(-ago), nil
	}
	return time.Time{}, nil
}

// refuseUsed refuses the end of a VM that has been used since the condition says, or
// is in use, with mu held.
func (s *supervisor) refuseUsed(idle IfIdle) error {
	if idle.Millis <= 0 {
		return nil
	}
	s.noticeTraffic()
	bound := time.Duration(idle.Millis) * time.Millisecond
	if s.streams == 0 && s.owners == 0 && time.Since(s.touched) >= bound {
		return nil
	}
	return banger.Errorf(banger.Busy, "it is in use, or was within %v", bound)
}

// noticeTraffic touches the VM if there was traffic since the last look, with mu held.
// A guest that knocks where it is refused, or where nobody is, does so by itself and
// for ever: that says nothing of its use.
func (s *supervisor) noticeTraffic() {
	if s.network == nil {
		return
	}
	if n := s.network.Traffic(); n != s.traffic {
		s.traffic, s.touched = n, time.Now()
	}
}
