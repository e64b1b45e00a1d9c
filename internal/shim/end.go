package shim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"banger"
	"banger/internal/guestlink"
	"banger/internal/vmm"
)

const (
	killSignal  = syscall.SIGKILL
	defaultStop = 10 * time.Second
	// stopMargin is what a guest gets beyond its processes' time to write
	// out what it holds.
	stopMargin   = 20 * time.Second
	consoleLines = 20 // of an Exit
)

// beginStop stops the VM in good order, if it is as idle as it is to be; the second
// to ask joins the first.
func (s *supervisor) beginStop(timeout time.Duration, idle IfIdle) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping || s.exit != nil {
		return nil
	}
	if err := s.refuseUsed(idle); err != nil {
		return err
	}
	s.stopping = true
	if s.asked == "" {
		s.asked = ReasonStopped
	}
	s.interruptSave()
	s.wake()
	s.log.Info("stopping", "timeout", timeout)
	s.work.Go(func() { s.shutDown(timeout) })
	return nil
}

// shutDown asks the guest to end, and ends the VMM where that does not work.
func (s *supervisor) shutDown(timeout time.Duration) {
	s.outlastSave()
	ctx, cancel := context.WithTimeout(context.Background(), timeout+s.margin)
	defer cancel()
	// A guest that takes nothing in may hold up the question itself.
	defer context.AfterFunc(ctx, func() { _ = s.present().machine.Signal(killSignal) })()
	if err := s.askGuest(ctx, timeout); err != nil {
		s.log.Warn("the guest cannot be asked to end", "error", err)
		_ = s.present().machine.Signal(killSignal)
	}
	select {
	case <-s.over:
	case <-ctx.Done():
		s.log.Warn("the guest did not end in time and is killed")
		_ = s.present().machine.Signal(killSignal)
	}
}

// outlastSave waits until nobody saves the machine. One who was interrupted may
// have much to write to the disk still; the guest, whose time to end it would
// be, stands still meanwhile, and to kill it would lose what it has not written.
func (s *supervisor) outlastSave() {
	ctx, cancel := context.WithTimeout(context.Background(), saveBound)
	defer cancel()
	if s.turn.take(ctx) == nil {
		s.turn.done()
	}
}

// askGuest returns once the guest is on its way down. The link may go before
// the answer comes, which is no reason to hurry.
func (s *supervisor) askGuest(ctx context.Context, timeout time.Duration) error {
	b := s.present()
	if err := s.unpause(ctx, b); err != nil {
		return err
	}
	link, err := s.linkOf(ctx, b, timeout)
	if err != nil {
		return err
	}
	err = link.Shutdown(ctx, timeout)
	if link.Conn().Err() != nil || banger.CodeOf(err) == banger.Conflict { // it is on its way
		return nil
	}
	if err != nil {
		_ = link.Sync(ctx)
	}
	return err
}

// linkOf waits for a guest that is still booting, so that its disk is left in
// good order.
func (s *supervisor) linkOf(ctx context.Context, b *boot, timeout time.Duration) (*guestlink.Link, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		s.mu.Lock()
		link, problem, changed := cmp.Or(b.link, b.early), b.problem, s.changed
		s.mu.Unlock()
		switch {
		case link != nil:
			return link, nil
		case problem != "":
			return nil, errors.New(problem)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// kill sends the VMM a signal that ends it; the first reason is recorded.
func (s *supervisor) kill(why Reason, sig syscall.Signal) error {
	var b *boot
	s.update(func() {
		if s.asked == "" {
			s.asked = why
		}
		s.interruptSave()
		b = s.boot
	})
	err := b.machine.Signal(sig)
	if banger.CodeOf(err) == banger.NotRunning {
		return nil // as asked, or in the middle of a reboot, which then ends
	}
	return err
}

// interruptSave ends a save that is under way, with mu held.
func (s *supervisor) interruptSave() {
	if s.interrupt != nil {
		s.interrupt()
	}
}

// moreBoots is how often a guest that resets before it is up is booted again.
// One does when its kernel had no luck on a busy host; one that always does
// would do so for ever.
const moreBoots = 2

// judge says how a boot ended, and whether that was a reboot.
func (s *supervisor) judge(b *boot) (exit Exit, reboot bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	how := b.machine.Exit()
	exit = Exit{At: time.Now(), Boots: s.boots, VMM: how, Console: lastLines(s.console.tail, consoleLines)}
	ready := !b.readyAt.IsZero()
	why, panicked := s.console.panicked()
	switch {
	case how.Reason == vmm.Reset && panicked:
		exit.Reason, exit.Message = ReasonPanic, "the guest's kernel panicked: "+why
	case s.asked != "":
		exit.Reason, exit.Message = s.asked, askedMessage(s.asked, how)
	case how.Reason == vmm.Reset && ready:
		s.failedBoots = 0
		return exit, true
	case b.restored != "" && !ready && !s.strict():
		s.unfit = "its guest did not answer"
		return exit, true
	case b.restored != "" && !ready:
		exit.Reason, exit.Message = ReasonNeverReady, "the guest of the saved machine did not answer"
	case how.Reason == vmm.Reset && s.failedBoots < moreBoots:
		s.failedBoots++
		return exit, true
	case (how.Reason == vmm.Reset || how.Reason == vmm.Poweroff) && !ready:
		exit.Reason, exit.Message = ReasonNeverReady, "the guest ended before it came up"
	case how.Reason == vmm.Poweroff:
		exit.Reason, exit.Message = ReasonPoweroff, "the guest powered off"
	default:
		exit.Reason, exit.Message = ReasonCrashed, crashMessage(how)
	}
	return exit, false
}

func askedMessage(asked Reason, how vmm.Exit) string {
	switch {
	case asked == ReasonSuspended:
		return "it was suspended"
	case asked == ReasonOwnerGone:
		return "its owner is gone"
	case asked == ReasonKilled:
		return "it was killed"
	case how.Reason == vmm.Poweroff || how.Reason == vmm.Reset:
		return "it was stopped"
	case how.Reason == vmm.Killed:
		return "it was stopped; the guest did not end by itself and was killed"
	}
	return "it was stopped; " + crashMessage(how)
}

func crashMessage(how vmm.Exit) string {
	switch {
	case how.Reason == vmm.Killed:
		return fmt.Sprintf("the VMM was killed by %s from outside", how.Signal)
	case how.Message != "":
		return "the VMM failed: " + how.Message
	case how.Signal != "":
		return "the VMM failed with " + how.Signal
	}
	return fmt.Sprintf("the VMM failed with status %d", how.Status)
}
