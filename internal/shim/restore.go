package shim

import (
	"context"
	"fmt"
	"time"

	"banger/internal/guestlink"
	"banger/internal/guestwire"
	"banger/internal/vmm"
)

// restoreLimit is how long a restored guest may take to answer. It answers in
// a few hundredths of a second, or never.
const restoreLimit = 20 * time.Second

// bootFirst begins the VM: as the machine that was saved, or from the start.
func (s *supervisor) bootFirst(ctx context.Context) error {
	defer func() {
		if s.memory != nil {
			_ = s.memory.Close()
		}
	}()
	if s.launch.Restore == nil {
		return s.bootVMM(ctx)
	}
	err := s.restoreVMM(ctx, *s.launch.Restore)
	if err == nil || ctx.Err() != nil {
		return err
	}
	s.refuse(err.Error())
	return s.bootVMM(ctx)
}

// refuse notes why the saved machine was not taken up.
func (s *supervisor) refuse(why string) {
	s.log.Warn("the machine cannot be restored and is booted", "problem", why)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unfit = why
}

// restoreVMM takes the saved machine up. Its disk has become larger, which the
// guest hears as soon as it runs.
func (s *supervisor) restoreVMM(ctx context.Context, from Restore) error {
	if s.memory == nil || len(from.Token) != guestwire.TokenLen {
		return fmt.Errorf("its memory or its token is missing")
	}
	s.console.newBoot()
	t := newTrace(s.launch)
	out := s.io()
	out.Up = func() { t.mark("VMM") }
	machine, err := s.driver.Restore(ctx, s.launch.Machine, vmm.Source{Memory: s.memory, State: from.State}, out)
	if err != nil {
		return err
	}
	t.mark("load")
	if size := s.launch.Setup.DiskBytes; size > 0 {
		if err := machine.GrowDisk(ctx, diskSerial, size); err != nil {
			_ = machine.Signal(killSignal)
			<-machine.Done()
			_ = machine.Agent().Close()
			return err
		}
	}
	b := &boot{machine: machine, template: from.Template, trace: t}
	s.begun(b, func(b *boot) (*guestlink.Link, error) {
		conn, err := guestwire.Redial(b.machine.Agent(), [guestwire.TokenLen]byte(from.Token), guestwire.NewToken(), nil)
		if err != nil {
			return nil, guestlink.Error(err)
		}
		return guestlink.Over(conn), nil
	})
	return nil
}

// diskSerial is the serial of a VM's writable disk.
const diskSerial = "disk"

// watchOver sees to it that somebody hears of a guest that does not come up. A
// restored one is ended, and the VM booted in its place.
func (s *supervisor) watchOver(b *boot) *time.Timer {
	if b.template == "" {
		return time.AfterFunc(s.launch.ReadyTimeout, func() { s.giveUp(b) })
	}
	return time.AfterFunc(restoreLimit, func() {
		s.mu.Lock()
		paused := s.paused
		s.mu.Unlock()
		if !paused {
			_ = b.machine.Signal(killSignal)
		}
	})
}
