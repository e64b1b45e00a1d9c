package shim

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"banger"
	"banger/internal/guestlink"
	"banger/internal/guestwire"
	"banger/internal/vmm"
)

// boot is one life of the VMM: a guest that reboots begins another. What
// changes in it is guarded by the supervisor's mu.
type boot struct {
	machine vmm.Machine
	work    sync.WaitGroup
	late    *time.Timer
	killed  bool // since it was late

	restored string // what it took up, as in Status.Restored
	template string // it is a fork of, or ""
	token    [guestwire.TokenLen]byte
	trace    *trace

	link    *guestlink.Link // once the guest was set up, until it is lost
	guest   guestwire.SetupResult
	early   *guestlink.Link // while the guest's own init brings it up
	readyAt time.Time
	problem string // why there is no link, once that is more than waiting
}

// entropyLen is what the guest kernel's generator is seeded with: its state is
// 32 bytes.
const entropyLen = 64

// bootVMM boots the machine and begins to bring its guest up.
func (s *supervisor) bootVMM(ctx context.Context) error {
	cfg, err := s.config(ctx)
	if err != nil {
		return err
	}
	s.console.newBoot()
	t := &trace{last: time.Now()}
	if s.boots == 0 {
		t = newTrace(s.launch)
	}
	machine, err := s.driver.Boot(ctx, cfg, s.io())
	if err != nil {
		return err
	}
	t.mark("VMM")
	s.begun(&boot{machine: machine, token: guestwire.NewToken(), trace: t}, func(b *boot) (*guestlink.Link, error) {
		return guestlink.Connect(b.machine.Agent(), b.token)
	})
	return nil
}

func (s *supervisor) io() vmm.IO {
	return vmm.IO{Console: s.console, Log: newVMMLog(s.log), Halted: s.outOfRoom}
}

// begun begins to bring the guest of a machine up.
func (s *supervisor) begun(b *boot, connect func(*boot) (*guestlink.Link, error)) {
	ending := false
	s.update(func() {
		b.late = s.watchOver(b)
		s.boot, s.paused, s.full = b, false, false
		s.boots++
		ending = s.asked != "" // while the guest was rebooting
	})
	if ending {
		_ = b.machine.Signal(killSignal)
	}
	s.log.Info("booted", "driver", s.driver.Name(), "pid", b.machine.PID(), "restored", b.restored, "template", b.template)
	s.plugIn(b)
	b.work.Go(func() { s.bringUp(b, connect) })
}

// end cleans up after the machine has ended.
func (b *boot) end() {
	b.late.Stop()
	_ = b.machine.Agent().Close()
	if c := b.machine.Cable(); c != nil {
		_ = c.Close()
	}
	b.work.Wait()
}

// bringUp waits for the guest's agent, sets the guest up, and then for the
// link to be lost. All of that ends with the machine.
func (s *supervisor) bringUp(b *boot, connect func(*boot) (*guestlink.Link, error)) {
	link, err := connect(b)
	if err != nil {
		s.notUp(b, fmt.Sprintf("its agent cannot be spoken to: %v", err))
		return
	}
	defer link.Close()
	b.trace.mark("link")
	guest, err := s.setUp(context.Background(), link, b.restored == RestoredFork || b.restored == RestoredSuspended)
	if err != nil {
		s.notUp(b, fmt.Sprintf("it could not be set up: %v", err))
		return
	}
	b.trace.mark("contract")
	if s.launch.OwnInit && b.restored == "" {
		s.awaitInit(b, link)
		b.trace.mark("init")
	}
	if err := s.plantSeed(link); err != nil {
		s.notUp(b, fmt.Sprintf("it could not be given your files: %v", err))
		return
	}
	s.update(func() {
		b.link, b.early, b.guest, b.readyAt, b.problem = link, nil, guest, time.Now(), ""
		b.trace.ready = true
	})
	b.late.Stop()
	s.log.Info("the guest is ready", "kernel", guest.Kernel, "agent", guest.Version)
	b.work.Go(func() { s.followListeners(link) })
	b.work.Go(func() { s.followClock(link) })
	<-link.Conn().Done()
	s.lost(b, fmt.Sprintf("its agent was lost: %v", link.Conn().Err()))
}

// awaitInit waits until the image's init has brought the guest up. One that does
// not come to an end makes the guest no less usable.
func (s *supervisor) awaitInit(b *boot, link *guestlink.Link) {
	s.update(func() { b.early = link })
	done, err := link.Booted(context.Background())
	if !done {
		s.log.Warn("the guest's init has not brought everything up", "error", err)
	}
}

// clockBound is how far off a guest's clock may be once it is ready.
const clockBound = 40 * time.Millisecond

// setUp makes the guest this VM's own. Its clock is late by what the call took
// to reach it, and a guest that only just began to run takes its time: then
// the clock is set again, by a way that was gone before.
//
// Where drop is set the machine ran before, and its connections are to end.
func (s *supervisor) setUp(ctx context.Context, link *guestlink.Link, drop bool) (guestwire.SetupResult, error) {
	setup := s.setup()
	if setup.Network != nil {
		setup.Network.Drop = drop
	}
	r, err := link.Setup(ctx, setup)
	if err != nil {
		return r, err
	}
	for _, what := range r.Failed {
		s.log.Warn("the guest is not all this VM's", "problem", what)
	}
	// What the answer took to come counts against the guest too. An agent
	// of an earlier build does not say.
	if r.TimeNanos != 0 {
		var off time.Duration
		if off, err = settleClock(ctx, link, time.Unix(0, r.TimeNanos)); off > clockOff {
			s.log.Warn("the guest's clock may be off", "off", off)
			s.doubtClock()
		}
	}
	return r, err
}

// setup is what makes the guest this VM's own, as of now.
func (s *supervisor) setup() guestwire.Setup {
	s.mu.Lock()
	setup := s.launch.Setup
	s.mu.Unlock()
	setup.Entropy = make([]byte, entropyLen)
	_, _ = rand.Read(setup.Entropy)
	setup.Network = s.place()
	setup.TimeNanos = time.Now().UnixNano()
	return setup
}

const (
	// endsSoon is how long a machine may take to end after its agent's line.
	endsSoon = time.Second
	// endsKilled is how long one may take that was killed, on a host that is busy.
	endsKilled = time.Minute
)

// notUp notes that a guest cannot come up, unless its machine ends: how it did
// says more, and it may be booted again.
func (s *supervisor) notUp(b *boot, why string) {
	s.mu.Lock()
	bound := endsSoon
	if b.killed {
		bound = endsKilled
	}
	s.mu.Unlock()
	select {
	case <-b.machine.Done():
		s.log.Info("the guest ended before it was up", "problem", why)
	case <-time.After(bound):
		s.lost(b, why)
	}
}

func (s *supervisor) lost(b *boot, why string) {
	s.update(func() { b.link, b.early, b.problem = nil, nil, why })
	s.log.Info("no link to the guest", "problem", why)
}

// giveUp lets those who wait for the guest go. The VM is kept, and becomes
// usable if its guest comes up after all.
func (s *supervisor) giveUp(b *boot, within time.Duration) {
	s.update(func() {
		if b.readyAt.IsZero() && b.problem == "" {
			b.problem = fmt.Sprintf("it did not come up within %v", within)
		}
	})
	s.log.Warn("the guest did not come up in time")
}

// awaitGuest waits until the guest can be spoken to, and says which boot's it
// is. It returns neither link nor error once done is closed.
func (s *supervisor) awaitGuest(done <-chan struct{}) (link *guestlink.Link, boots int, err error) {
	for {
		var changed <-chan struct{}
		link, boots, changed, err = s.guest()
		if link != nil || err != nil {
			return link, boots, err
		}
		select {
		case <-changed:
		case <-done:
			return nil, 0, nil
		}
	}
}

// guest gives the link, or why there will be none, or what to wait for.
func (s *supervisor) guest() (_ *guestlink.Link, boots int, changed <-chan struct{}, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch st := s.state(); {
	case st == Ended || st == Stopping:
		return nil, 0, nil, s.notRunning()
	case s.full:
		return nil, 0, nil, banger.Errorf(banger.NoSpace, "cannot reach the guest of %s: %s", s.launch.Name, s.standstill())
	case st == Paused:
		return nil, 0, nil, banger.Errorf(banger.NotRunning, "%s is paused", s.launch.Name).
			Hint("banger vm resume %s", s.launch.Name)
	case s.boot.problem != "":
		return nil, 0, nil, banger.Errorf(banger.Unavailable, "cannot reach the guest of %s: %s", s.launch.Name, s.boot.problem).
			Hint("banger vm logs %s", s.launch.Name)
	}
	return s.boot.link, s.boots, s.changed, nil
}
