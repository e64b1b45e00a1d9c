package shim

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"banger"
)

// pauseSlowly pauses a VM whose VMM takes more time for it than it has, and gives what
// that was told.
func pauseSlowly(t *testing.T, r *rig) (said []string, err error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r.driver.pause = func(ctx context.Context) error { cancel(); return context.Cause(ctx) }
	err = r.shim.pause(ctx)
	for len(r.machine.pauses) > 0 {
		said = append(said, <-r.machine.pauses)
	}
	return said, err
}

// A VMM that was given up on pauses the machine all the same, later.
func TestVMThatTakesTooLongToPauseRunsOn(t *testing.T) {
	r := newRig(t, &scripted{agent: echo}, testLaunch())
	r.await(t, r.is(Running))
	said, err := pauseSlowly(t, r)
	if !slices.Equal(said, []string{"pause", "resume"}) {
		t.Errorf("the VMM was told %q", said)
	}
	hints := banger.HintsOf(err)
	if banger.CodeOf(err) != banger.Unavailable || !strings.HasPrefix(err.Error(), "cannot pause devbox: ") || len(hints) != 1 {
		t.Errorf("got %v with %q", err, hints)
	}
	if s, err := r.Status(t.Context()); err != nil || s.State != Running {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestPausedVMThatTakesTooLongToPauseAgainStaysPaused(t *testing.T) {
	r := newRig(t, &scripted{agent: echo}, testLaunch())
	r.await(t, r.is(Running))
	if err := r.shim.pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-r.machine.pauses
	if said, err := pauseSlowly(t, r); err == nil || !slices.Equal(said, []string{"pause"}) {
		t.Errorf("the VMM was told %q, %v", said, err)
	}
	if s, err := r.Status(t.Context()); err != nil || s.State != Paused {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestVMThatCannotBePausedNorRunOnIsShownAsPaused(t *testing.T) {
	r := newRig(t, &scripted{agent: echo, resume: errors.New("no")}, testLaunch())
	r.await(t, r.is(Running))
	_, err := pauseSlowly(t, r)
	if hints := banger.HintsOf(err); err == nil || len(hints) != 1 || hints[0] != "banger vm resume devbox" {
		t.Errorf("got %v with %q", err, hints)
	}
	if s, err := r.Status(t.Context()); err != nil || s.State != Paused {
		t.Errorf("%+v, %v", s, err)
	}
}
