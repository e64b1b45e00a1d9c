package shim

import (
	"strings"
	"sync/atomic"
	"testing"

	"banger"
	"banger/internal/guestwire"
)

// full is a shim whose guest came up and then stands still for want of room.
func full(t *testing.T) (*rig, *atomic.Bool) {
	t.Helper()
	var room atomic.Bool
	r := newRig(t, &scripted{agent: echo, room: room.Load}, testLaunch())
	r.await(t, r.is(Running))
	r.machine.halted()
	return r, &room
}

func TestGuestOutOfRoomStandsStillUntilThereIsSome(t *testing.T) {
	r, room := full(t)
	s := r.await(t, r.is(Paused))
	if !strings.Contains(s.Problem, string(r.dir)) || !strings.Contains(s.Problem, "no space") {
		t.Errorf("the problem is %q", s.Problem)
	}
	if _, _, err := run(t, r.Conn(), "x"); !refusedAs(err, banger.NoSpace) {
		t.Errorf("a command for it: %v", err)
	}
	room.Store(true)
	s = r.await(t, r.is(Running))
	if got := <-r.machine.pauses; got != "resume" || s.Problem != "" {
		t.Errorf("the machine was told to %s; the problem is %q", got, s.Problem)
	}
	if out, status, err := run(t, r.Conn(), "x"); out != "x" || status != 7 || err != nil {
		t.Errorf("then: %q, %d, %v", out, status, err)
	}
}

func TestGuestOutOfRoomBeforeItIsUpIsNotWaitedFor(t *testing.T) {
	r := newRig(t, &scripted{room: func() bool { return false }}, testLaunch())
	r.machine.halted()
	r.await(t, r.is(Paused))
	if _, err := r.Suspend(t.Context()); banger.CodeOf(err) != banger.NoSpace {
		t.Errorf("suspending it: %v", err)
	}
}

func TestGuestOutOfRoomThatIsPausedStaysSo(t *testing.T) {
	r, room := full(t)
	r.await(t, r.is(Paused))
	if err := r.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	room.Store(true)
	r.await(t, func(s Status) bool { return s.State == Paused && s.Problem == "" })
	if got := <-r.machine.pauses; got != "pause" || len(r.machine.pauses) > 0 {
		t.Errorf("the machine was told to %s and %d things more", got, len(r.machine.pauses))
	}
}

func TestGuestOutOfRoomCanBeResumedAndStandStillAgain(t *testing.T) {
	r, _ := full(t)
	r.await(t, r.is(Paused))
	if err := r.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := r.await(t, r.is(Running)); s.Problem != "" {
		t.Errorf("the problem is %q", s.Problem)
	}
	r.machine.halted()
	if s := r.await(t, r.is(Paused)); s.Problem == "" {
		t.Error("nobody says why it stands still")
	}
}

func refusedAs(err error, code banger.Code) bool {
	f, is := err.(*guestwire.Failure)
	return is && f.Code == string(code)
}
