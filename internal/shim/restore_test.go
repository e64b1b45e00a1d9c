package shim

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
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
				s := &supervisor{grace: vmm.Grace, boot: &boot{machine: m, restored: RestoredSuspended}, changed: make(chan struct{})}
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

// TestGuestOfAVMMThatWaitsGetsMoreTime: nothing is wrong with it.
func TestGuestOfAVMMThatWaitsGetsMoreTime(t *testing.T) {
	const limit, lost = time.Minute, 45 * time.Second
	for _, restored := range []string{"", RestoredTemplate, RestoredFork} {
		t.Run(cmp.Or(restored, "booted"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := (&scripted{}).machine(vmm.IO{})
				s := &supervisor{
					boot: &boot{machine: m, restored: restored}, changed: make(chan struct{}), log: slog.New(slog.DiscardHandler),
					launch: Launch{ReadyTimeout: limit}, grace: func(int, time.Duration) time.Duration { return lost },
				}
				s.update(func() { s.boot.late = s.watchOver(s.boot) })
				state := func() (problem string, killed bool) { // a timer writes it, as early as the next moment
					s.mu.Lock()
					defer s.mu.Unlock()
					return s.boot.problem, s.boot.killed
				}
				least := limit
				if restored == RestoredTemplate {
					least = restoreLimit
				}
				time.Sleep(least + lost - time.Nanosecond)
				synctest.Wait()
				if problem, killed := state(); problem != "" || killed {
					t.Errorf("it was given up before its time: %q", problem)
				}
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				problem, killed := state()
				if restored == "" && problem != "it did not come up within 1m45s" || restored != "" && !killed {
					t.Errorf("it was not given up: %q", problem)
				}
				m.end(vmm.Exit{})
			})
		})
	}
}

// Else the start of a VM on a busy host fails, where a boot was to follow.
func TestRestoredGuestThatIsLateAndDiesSlowlyIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := (&scripted{dying: 20 * endsSoon}).machine(vmm.IO{})
		s := &supervisor{grace: vmm.Grace, boot: &boot{machine: m, restored: RestoredTemplate}, changed: make(chan struct{}), log: slog.New(slog.DiscardHandler)}
		s.update(func() { s.boot.late = s.watchOver(s.boot) })
		_, err := m.host.Read(make([]byte, 1)) // as setting it up does, until it is killed
		s.notUp(s.boot, fmt.Sprint("its agent was lost: ", err))
		if s.boot.problem != "" {
			t.Error(s.boot.problem)
		}
	})
}
