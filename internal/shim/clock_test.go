package shim

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// clockRig is a shim whose guest's clock is off, and what tells it of a step.
func clockRig(t *testing.T, d *scripted, off time.Duration) (*rig, chan<- struct{}) {
	t.Helper()
	told := make(chan struct{})
	d.agent = echo
	d.steps = func() (<-chan struct{}, func(), error) { return told, func() {}, nil }
	r := newRig(t, d, testLaunch())
	r.await(t, r.is(Running))
	r.machine.off.Store(int64(off))
	return r, told
}

func (r *rig) awaitClock(t *testing.T) {
	t.Helper()
	select {
	case to := <-r.machine.sets:
		if off := time.Since(to); off.Abs() > time.Minute { // as long as a busy host may take
			t.Errorf("the guest's clock was set %v off", off)
		}
	case <-time.After(time.Minute):
		t.Fatal("the guest's clock was not set")
	}
}

func TestGuestFollowsAClockThatIsSet(t *testing.T) {
	for _, off := range []time.Duration{time.Hour, -time.Hour} {
		r, told := clockRig(t, &scripted{}, off)
		told <- struct{}{}
		r.awaitClock(t)
	}
}

// corrects has the shim look at its guest's clock, and says how often that was set.
func (r *rig) corrects(t *testing.T, stepped bool) (times int) {
	t.Helper()
	link, _, _, err := r.shim.guest()
	if err != nil {
		t.Fatal(err)
	}
	if right, err := r.shim.correctClock(link, stepped); err != nil || !right {
		t.Errorf("the clock is right: %v, %v", right, err)
	}
	for ; len(r.machine.sets) > 0; times++ {
		<-r.machine.sets
	}
	return times
}

func TestAgentThatDoesNotTellItsClockHasItSet(t *testing.T) {
	r, _ := clockRig(t, &scripted{timeless: true}, time.Hour)
	if r.corrects(t, true) == 0 {
		t.Error("it was not set")
	}
	r.machine.off.Store(int64(time.Hour))
	if r.corrects(t, false) != 0 {
		t.Error("it was set for no reason")
	}
}

func TestClockThatDriftedIsSetAndOneThatIsRightIsNot(t *testing.T) {
	r, _ := clockRig(t, &scripted{}, 0)
	if r.corrects(t, true) != 0 {
		t.Error("a clock that is right was set")
	}
	r.machine.off.Store(int64(-time.Minute))
	if r.corrects(t, false) == 0 {
		t.Error("a clock that is late was not set")
	}
}

func TestClockThatCannotBeSetRightIsSaidAndLookedAtAgain(t *testing.T) {
	r, _ := clockRig(t, &scripted{stuck: time.Hour}, time.Hour) // and up it is
	for range 2 * clockTries {                                  // as it is set up, and at a second look
		r.awaitClock(t)
	}
	link, _, _, err := r.shim.guest()
	if err != nil {
		t.Fatal(err)
	}
	if right, err := r.shim.correctClock(link, false); right || err == nil || !strings.Contains(err.Error(), "is still ") {
		t.Errorf("the clock is right: %v, %v", right, err)
	}
}

// A guest that lies costs no more than one that drifts, after a while.
func TestClockInDoubtIsLookedAtSoonAndEverLessOften(t *testing.T) {
	last := time.Duration(0)
	for doubts, soon := range []bool{false, true, true, true, false, false, false} {
		next := nextLook(doubts)
		if next < time.Minute != soon || next > clockInterval || doubts > 1 && next < last {
			t.Errorf("after %d looks it is looked at in %v, and before that in %v", doubts, next, last)
		}
		last = next
	}
	if nextLook(1<<40) != clockInterval {
		t.Error("it is looked at for ever in ", nextLook(1<<40))
	}
}

func TestClockInDoubtIsLookedAt(t *testing.T) {
	r, _ := clockRig(t, &scripted{}, time.Hour)
	r.shim.doubtClock()
	r.awaitClock(t)
}

func TestPausedGuestIsNotAskedForItsClock(t *testing.T) {
	r, _ := clockRig(t, &scripted{}, time.Hour)
	link, _, _, err := r.shim.guest()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if right, err := r.shim.correctClock(link, true); right || err != nil || len(r.machine.sets) > 0 {
		t.Errorf("a paused guest was spoken to, or %v, %v", right, err)
	}
}

func TestReadingOfAClockThatTakesLongSaysNoMoreThanItCan(t *testing.T) {
	before := time.Now()
	after := before.Add(2 * time.Second)
	for offset, want := range map[time.Duration]bool{
		0: false, time.Second: false, 2 * time.Second: false,
		-clockOff + 1: false, 2*time.Second + clockOff - 1: false,
		-clockOff - 1: true, 2*time.Second + clockOff + 1: true,
	} {
		if isOff(before.Round(0).Add(offset), before, after) != want {
			t.Errorf("%v after the question, off is %v", offset, !want)
		}
	}
}

// TestKernelTellsOfASetClock sets this machine's clock, to what it is, and so runs
// only where it is asked to: in a guest.
func TestKernelTellsOfASetClock(t *testing.T) {
	told, stop, err := hostSteps()
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if os.Getenv("BANGER_TEST_SET_CLOCK") == "" {
		t.Skip("BANGER_TEST_SET_CLOCK is not set")
	}
	for range 3 {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
			t.Fatal(err)
		}
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &now); err != nil {
			t.Fatal(err)
		}
		select {
		case <-told:
		case <-time.After(time.Minute):
			t.Fatal("nobody told of it")
		}
	}
}
