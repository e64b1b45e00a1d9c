package shim

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"banger/internal/guestwire"
	"banger/internal/vmm"
)

// oldToken is that of the host before.
var oldToken = [guestwire.TokenLen]byte{1, 2, 3}

func restoreLaunch(t *testing.T) Launch {
	t.Helper()
	memory, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	l := testLaunch()
	l.Restore = &Restore{Template: "t1", State: "state", Token: oldToken[:], Memory: memory}
	return l
}

// spokenTo is a guest that has spoken to a host before.
func spokenTo(m *scriptedMachine) error { return spokenToWith(m, oldToken[:]) }

func spokenToWith(m *scriptedMachine, token []byte) error {
	m.comeUp()
	hello := append([]byte{1, 0, 0, 24, 'b', 'n', 'g', 'r', 0, guestwire.Major, 0, guestwire.Minor}, token...)
	if _, err := m.host.Write(hello); err != nil {
		return err
	}
	answer := make([]byte, len(hello))
	if _, err := io.ReadFull(m.host, answer); err != nil || !bytes.Equal(answer, hello) {
		return errors.Join(err, errors.New("it does not answer"))
	}
	return nil
}

func TestMachineThatWasSavedIsTakenUpOnce(t *testing.T) {
	d := &scripted{agent: echo, restore: spokenTo}
	r := newRig(t, d, restoreLaunch(t))
	if s := r.await(t, r.is(Running)); s.Template != "t1" || s.NotRestored != "" || len(s.Trace) < 4 {
		t.Fatalf("%+v", s)
	}
	r.machine.end(vmm.Exit{Reason: vmm.Reset})
	<-d.boots
	s := r.await(t, func(s Status) bool { return s.State == Running && s.Boots == 2 })
	if s.Template != "" || s.NotRestored != "" {
		t.Fatalf("after a reboot: %+v", s)
	}
}

func TestMachineThatCannotBeRestoredIsBooted(t *testing.T) {
	refused := errors.New("it is damaged")
	r := newRig(t, &scripted{agent: echo, restore: func(*scriptedMachine) error { return refused }}, restoreLaunch(t))
	if s := r.await(t, r.is(Running)); s.Template != "" || !strings.Contains(s.NotRestored, refused.Error()) || s.Boots != 1 {
		t.Fatalf("%+v", s)
	}
}

func TestLaunchWithoutItsMemoryIsBooted(t *testing.T) {
	l := restoreLaunch(t)
	l.Restore.Memory = nil
	r := newRig(t, &scripted{agent: echo, restore: spokenTo}, l)
	if s := r.await(t, r.is(Running)); s.Template != "" || s.NotRestored == "" {
		t.Fatalf("%+v", s)
	}
}

func TestRestoredMachineThatEndsUnheardIsBooted(t *testing.T) {
	d := &scripted{agent: echo, restore: func(*scriptedMachine) error { return nil }}
	r := newRig(t, d, restoreLaunch(t))
	r.machine.end(vmm.Exit{Reason: vmm.Crashed})
	<-d.boots
	if s := r.await(t, r.is(Running)); s.Template != "" || s.NotRestored == "" {
		t.Fatalf("%+v", s)
	}
}

// TestRestoredGuestIsNotEndedWhileItStandsStill: nothing else has what is in its
// memory.
func TestRestoredGuestIsNotEndedWhileItStandsStill(t *testing.T) {
	for what, still := range map[string]func(*supervisor, bool){
		"paused":      func(s *supervisor, yes bool) { s.update(func() { s.paused = yes }) },
		"out of room": func(s *supervisor, yes bool) { s.update(func() { s.full = yes }) },
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := (&scripted{}).machine(vmm.IO{})
				s := &supervisor{boot: &boot{machine: m, restored: RestoredSuspended}, changed: make(chan struct{})}
				s.update(func() { s.boot.late = s.watchOver(s.boot) })
				still(s, true)
				time.Sleep(3*restoreLimit + time.Second)
				synctest.Wait()
				select {
				case <-m.done:
					t.Fatal("it was ended")
				default:
				}
				still(s, false)
				time.Sleep(restoreLimit)
				synctest.Wait()
				select {
				case <-m.done:
				default:
					t.Error("it runs, does not answer, and nobody ends it")
				}
			})
		})
	}
}
