package shim

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/guestlink"
)

// A guest keeps time by its own processor, from the moment at which it was told the
// time. It does not hear that the host's clock was set, or ran faster or slower for a
// while to come right, and it sleeps when the host does.

const (
	// clockOff is how far off a guest's clock may be before it is set: well below the
	// second that is promised, and above what programs would notice often.
	clockOff = 250 * time.Millisecond
	// clockInterval is how often it is looked at. A host's clock is bent by at most
	// 500 ppm, which is 150 ms in that time.
	clockInterval = 5 * time.Minute
	// clockAgain is when it is looked at again that could not be set right, and each
	// time after that when twice as much has passed: a guest may never answer, or lie.
	clockAgain = 10 * time.Second
	// clockTimeout bounds questions to a guest that may be busy.
	clockTimeout = 30 * time.Second
)

// steps tells of each moment at which the host's clock was set, or the host woke.
type steps func() (told <-chan struct{}, stop func(), err error)

// hostSteps has the kernel tell: a timer for a moment far away that is cancelled when
// the clock is set, which it is too when the machine wakes. It costs nothing
// meanwhile.
func hostSteps() (<-chan struct{}, func(), error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, nil, err
	}
	timer := os.NewFile(uintptr(fd), "timerfd")
	if err := expectStep(fd); err != nil {
		_ = timer.Close()
		return nil, nil, err
	}
	told := make(chan struct{}, 1)
	go func() {
		for never := make([]byte, 8); ; {
			if _, err := timer.Read(never); !errors.Is(err, unix.ECANCELED) {
				return // it was closed
			}
			if err := rearm(timer); err != nil && !errors.Is(err, unix.ECANCELED) { // set once more
				return
			}
			select {
			case told <- struct{}{}:
			default: // nobody has taken up the last one yet
			}
		}
	}()
	return told, func() { _ = timer.Close() }, nil
}

func rearm(timer *os.File) error {
	raw, err := timer.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = expectStep(int(fd)) })
	return errors.Join(err, failed)
}

func expectStep(fd int) error {
	never := &unix.ItimerSpec{Value: unix.Timespec{Sec: 1<<33 - 1}}
	return unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, never, nil)
}

// followClock keeps the guest's clock right until its link is lost.
func (s *supervisor) followClock(link *guestlink.Link) {
	told, stop, err := s.steps()
	if err != nil {
		s.log.Warn("nobody will tell that the host's clock was set", "error", err)
	} else {
		defer stop()
	}
	look := time.NewTimer(clockInterval)
	defer look.Stop()
	for doubts := 0; ; {
		doubtful := doubts > 0
		select {
		case <-told:
			doubtful, doubts = true, 0
		case <-s.clockDoubt:
			doubtful, doubts = true, 0
		case <-look.C:
		case <-link.Conn().Done():
			return
		}
		right, err := s.correctClock(link, doubtful)
		if err != nil && link.Conn().Err() == nil {
			s.log.Warn("the guest's clock may be off", "error", err)
		}
		if right || !doubtful && err == nil {
			doubts = 0
		} else {
			doubts++
		}
		look.Reset(nextLook(doubts))
	}
}

// nextLook is when a clock is looked at again that was in doubt after so many looks in
// a row.
func nextLook(doubts int) time.Duration {
	if doubts == 0 || doubts > 5 {
		return clockInterval
	}
	return clockAgain << (doubts - 1)
}

// doubtClock has the guest's clock looked at again: it was to be set and was not. What
// was asked of a guest that stood still may come to it late, and with the time of then.
func (s *supervisor) doubtClock() {
	select {
	case s.clockDoubt <- struct{}{}:
	default: // somebody said so already
	}
}

// correctClock sets the guest's clock where it is off, and says whether it is right
// then. An agent that does not say what its clock is, since it is of an earlier build,
// has it set when the host's was. A VM that stands still is left alone: resuming it
// sets its clock.
func (s *supervisor) correctClock(link *guestlink.Link, stepped bool) (right bool, err error) {
	if !s.runs() {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), clockTimeout)
	defer cancel()
	before := time.Now()
	now, err := link.Clock(ctx)
	switch unknown := banger.CodeOf(err) == banger.UnknownMethod; {
	case unknown && !stepped:
		return true, nil
	case unknown:
	case err != nil:
		return false, err
	case !isOff(now, before, time.Now()):
		return true, nil
	}
	s.log.Info("setting the guest's clock", "stepped", stepped)
	off, err := settleClock(ctx, link, time.Time{})
	if err == nil && off > clockOff {
		err = banger.Errorf(banger.Unavailable, "it was set and is still %v off", off.Round(time.Millisecond))
	}
	return err == nil, err
}

func (s *supervisor) runs() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state() == Running
}

// isOff says whether a clock that was read between two moments of the host's is off.
// Which of them it was is not known: an answer may take long.
func isOff(now, before, after time.Time) bool {
	// By the wall clock, which may have been set in between.
	return now.Before(before.Round(0).Add(-clockOff)) || now.After(after.Round(0).Add(clockOff))
}

// clockTries is how often a guest's clock is set to come within clockBound. What a
// call took to reach the guest makes its clock late, and each has other luck.
const clockTries = 3

// settleClock sets the guest's clock until it is within clockBound of the host's, and
// says how far off it may be in the end, which is far where the VM was paused
// meanwhile. now is what it was a moment ago, zero where that is not known.
func settleClock(ctx context.Context, link *guestlink.Link, now time.Time) (off time.Duration, err error) {
	off = time.Since(now).Abs()
	for try := 0; try < clockTries && off >= clockBound; try++ {
		if now, err = link.SetClock(ctx, time.Now()); err != nil {
			return off, err
		}
		off = time.Since(now).Abs() // with what the answer took to come
	}
	return off, nil
}
