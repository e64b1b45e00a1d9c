package shim

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/guestwire"
	"banger/internal/vmm"
)

func TestStopAsksTheGuestAndRecordsIt(t *testing.T) {
	r := newRig(t, &scripted{agent: echo}, testLaunch())
	e, err := r.Stop(t.Context(), time.Minute)
	if err != nil || e.Reason != ReasonStopped || e.VMM.Reason != vmm.Poweroff || e.Failed() {
		t.Fatalf("%+v, %v", e, err)
	}
	if got := r.recorded(t); got.Reason != ReasonStopped || got.Boots != 1 {
		t.Fatalf("recorded %+v", got)
	}
	if _, err := os.Stat(r.dir.ShimSocket()); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the socket is still there: %v", err)
	}
	if _, alive, err := Alive(r.dir); alive || err != nil {
		t.Fatalf("alive %v, %v", alive, err)
	}
}

func TestStopWaitsForAGuestThatStillBoots(t *testing.T) {
	d := &scripted{}
	r := newRig(t, d, testLaunch())
	done := make(chan Exit, 1)
	go func() {
		e, _ := r.Stop(t.Context(), time.Minute)
		done <- e
	}()
	r.await(t, r.is(Stopping))
	d.agent = echo
	r.machine.comeUp()
	if e := <-done; e.VMM.Reason != vmm.Poweroff {
		t.Fatalf("%+v", e)
	}
}

func TestStopResumesAPausedVMFirst(t *testing.T) {
	r := newRig(t, &scripted{agent: echo}, testLaunch())
	r.await(t, r.is(Running))
	if err := r.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e, err := r.Stop(t.Context(), time.Minute); err != nil || e.VMM.Reason != vmm.Poweroff {
		t.Fatalf("%+v, %v", e, err)
	}
	close(r.machine.pauses)
	var said []string
	for s := range r.machine.pauses {
		said = append(said, s)
	}
	if !slices.Equal(said, []string{"pause", "resume"}) {
		t.Fatalf("the VMM was told %q", said)
	}
}

func TestStopKillsAGuestThatDoesNotEnd(t *testing.T) {
	r := newRig(t, &scripted{agent: echo, stubborn: true}, testLaunch())
	r.shim.margin = time.Millisecond
	r.await(t, r.is(Running))
	e, err := r.Stop(t.Context(), time.Millisecond)
	if err != nil || e.Reason != ReasonStopped || e.VMM.Reason != vmm.Killed || !strings.Contains(e.Message, "was killed") {
		t.Fatalf("%+v, %v", e, err)
	}
}

func TestStopKillsAGuestThatTakesNothingIn(t *testing.T) {
	d := &scripted{stubborn: true, deaf: make(chan struct{})}
	d.agent = func(*guestwire.Stream) { close(d.deaf) }
	r := newRig(t, d, testLaunch())
	r.shim.margin = time.Millisecond
	s, err := r.Conn().Open(guestwire.KindExec, nil)
	if err != nil {
		t.Fatal(err)
	}
	<-d.deaf
	go func() { _, _ = s.Writer(guestwire.Stdin).Write(make([]byte, guestwire.Window)) }()
	time.Sleep(20 * time.Millisecond) // until the shim is stuck with it
	other, err := Dial(t.Context(), r.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	e, err := other.Stop(t.Context(), time.Millisecond)
	if err != nil || e.Reason != ReasonStopped || e.VMM.Reason != vmm.Killed {
		t.Fatalf("%+v, %v", e, err)
	}
}

func TestStopEndsAVMWhoseGuestNeverCameUp(t *testing.T) {
	l := testLaunch()
	l.ReadyTimeout = time.Millisecond
	r := newRig(t, &scripted{}, l)
	r.await(t, func(s Status) bool { return s.Problem != "" })
	if e, err := r.Stop(t.Context(), time.Minute); err != nil || e.Reason != ReasonStopped {
		t.Fatalf("%+v, %v", e, err)
	}
}

func TestKillEndsTheVMMAndIsNoFailure(t *testing.T) {
	r := newRig(t, &scripted{agent: echo}, testLaunch())
	e, err := r.Kill(t.Context(), syscall.SIGINT)
	if err != nil || e.Reason != ReasonKilled || e.Failed() {
		t.Fatalf("%+v, %v", e, err)
	}
	if got := r.recorded(t); got.Reason != ReasonKilled {
		t.Fatalf("recorded %+v", got)
	}
}

func TestKillRefusesOtherSignals(t *testing.T) {
	r := newRig(t, &scripted{agent: echo}, testLaunch())
	if _, err := r.Kill(t.Context(), syscall.SIGUSR1); banger.CodeOf(err) != banger.BadRequest {
		t.Fatalf("got %v", err)
	}
}

func TestVMMThatDiesIsRecordedWithItsConsole(t *testing.T) {
	r := newRig(t, &scripted{agent: echo}, testLaunch())
	r.await(t, r.is(Running))
	_, _ = r.machine.console.Write([]byte("one\r\ntwo\x1b[31m red\r\n\r\n"))
	r.machine.end(vmm.Exit{Reason: vmm.Killed, Signal: "SIGKILL"})
	e := r.recorded(t)
	if e.Reason != ReasonCrashed || !e.Failed() || !strings.Contains(e.Message, "SIGKILL") {
		t.Fatalf("recorded %+v", e)
	}
	if !slices.Equal(e.Console, []string{"one", "two[31m red"}) {
		t.Fatalf("console %q", e.Console)
	}
}

func TestWatcherIsToldToTheEnd(t *testing.T) {
	r := newRig(t, &scripted{agent: echo}, testLaunch())
	var seen []State
	watched := make(chan error, 1)
	running := make(chan struct{})
	go func() {
		watched <- r.Watch(context.Background(), func(s Status) {
			if seen = append(seen, s.State); s.State == Running && len(slices.DeleteFunc(slices.Clone(seen), func(x State) bool { return x != Running })) == 1 {
				close(running)
			}
		})
	}()
	<-running
	r.machine.end(vmm.Exit{Reason: vmm.Poweroff})
	if err := <-watched; err != nil || seen[len(seen)-1] != Ended {
		t.Fatalf("saw %q, %v", seen, err)
	}
	if e := r.recorded(t); e.Reason != ReasonPoweroff || e.Failed() {
		t.Fatalf("recorded %+v", e)
	}
}

func TestRebootInsideBootsAgain(t *testing.T) {
	d := &scripted{agent: echo}
	r := newRig(t, d, testLaunch())
	r.await(t, r.is(Running))
	r.machine.end(vmm.Exit{Reason: vmm.Reset})
	<-d.boots
	r.await(t, func(s Status) bool { return s.State == Running && s.Boots == 2 })
	if _, status, err := run(t, r.Conn(), "again"); status != 7 || err != nil {
		t.Fatalf("status %d, %v", status, err)
	}
}

func TestPanicEndsTheRun(t *testing.T) {
	d := &scripted{agent: echo}
	r := newRig(t, d, testLaunch())
	r.await(t, r.is(Running))
	_, _ = r.machine.console.Write([]byte("[    1.0] Kernel panic - not syncing: Attempted to kill init!\n"))
	r.machine.end(vmm.Exit{Reason: vmm.Reset})
	if e := r.recorded(t); e.Reason != ReasonPanic || !e.Failed() || len(e.Console) != 1 || !strings.HasSuffix(e.Message, ": Attempted to kill init!") {
		t.Fatalf("recorded %+v", e)
	}
}

func TestEarlierBootsAreForgottenByTheNext(t *testing.T) {
	d := &scripted{agent: echo}
	r := newRig(t, d, testLaunch())
	r.await(t, r.is(Running))
	_, _ = r.machine.console.Write([]byte("of the first boot\n"))
	r.machine.end(vmm.Exit{Reason: vmm.Reset})
	second := <-d.boots
	_, _ = second.console.Write([]byte("of the second boot\n"))
	second.end(vmm.Exit{Reason: vmm.Poweroff})
	if e := r.recorded(t); e.Boots != 2 || !slices.Equal(e.Console, []string{"of the second boot"}) {
		t.Fatalf("recorded %+v", e)
	}
}

func TestGuestThatResetsBeforeItIsUpIsNotBootedForEver(t *testing.T) {
	r := newRig(t, &scripted{}, testLaunch())
	for range moreBoots {
		r.machine.end(vmm.Exit{Reason: vmm.Reset})
		r.machine = <-r.driver.boots
	}
	r.machine.end(vmm.Exit{Reason: vmm.Reset})
	if e := r.recorded(t); e.Reason != ReasonNeverReady || !e.Failed() {
		t.Fatalf("recorded %+v", e)
	}
}

func TestEphemeralVMEndsWithItsLastOwner(t *testing.T) {
	l := testLaunch()
	l.Ephemeral = true
	r := newRig(t, &scripted{agent: echo}, l)
	var owners []*Client
	for range 2 {
		c, err := Dial(t.Context(), r.dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Own(t.Context()); err != nil {
			t.Fatal(err)
		}
		owners = append(owners, c)
	}
	_ = owners[0].Close()
	r.await(t, func(s Status) bool { return s.Owners == 1 && s.State == Running })
	_ = owners[1].Close()
	if e := r.recorded(t); e.Reason != ReasonOwnerGone || e.Failed() {
		t.Fatalf("recorded %+v", e)
	}
}

func TestKeptVMOutlivesItsOwner(t *testing.T) {
	l := testLaunch()
	l.Ephemeral = true
	r := newRig(t, &scripted{agent: echo}, l)
	owner, err := Dial(t.Context(), r.dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Own(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := owner.Keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = owner.Close()
	r.await(t, func(s Status) bool { return s.Owners == 0 && s.State == Running && !s.Ephemeral })
	if l, err := ReadLaunch(r.dir); err != nil || l.Ephemeral {
		t.Fatalf("launch.json says %v, %v", l.Ephemeral, err)
	}
}

func TestStreamsTouch(t *testing.T) {
	r := newRig(t, &scripted{agent: echo}, testLaunch())
	before, err := r.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.shim.mu.Lock()
	r.shim.touched = r.shim.touched.Add(-time.Hour)
	r.shim.mu.Unlock()
	if idle, _ := r.Status(t.Context()); idle.IdleMillis < time.Hour.Milliseconds() {
		t.Fatalf("idle for %d ms", idle.IdleMillis)
	}
	if _, _, err := run(t, r.Conn(), ""); err != nil {
		t.Fatal(err)
	}
	after, _ := r.Status(t.Context())
	if !after.LastTouched.After(before.LastTouched) || after.IdleMillis >= time.Hour.Milliseconds() {
		t.Fatalf("touched %v, then %v, idle for %d ms", before.LastTouched, after.LastTouched, after.IdleMillis)
	}
}

func TestQuestionsDoNotTouch(t *testing.T) {
	r := newRig(t, &scripted{agent: echo}, testLaunch())
	r.await(t, r.is(Running))
	before, _ := r.Status(t.Context())
	if err := r.Guest().Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after, err := r.Status(t.Context()); !after.LastTouched.Equal(before.LastTouched) || err != nil {
		t.Fatalf("touched %v, then %v, %v", before.LastTouched, after.LastTouched, err)
	}
}

func TestSecondShimIsRefused(t *testing.T) {
	r := newRig(t, &scripted{agent: echo}, testLaunch())
	opts := Options{Driver: func(string) (vmm.Driver, error) { return r.driver, nil }, Network: testNetwork, Layers: testLayers}
	if _, err := open(t.Context(), r.dir, opts, slog.New(slog.DiscardHandler)); banger.CodeOf(err) != banger.Conflict {
		t.Fatalf("got %v", err)
	}
	if s, err := r.Status(t.Context()); err != nil || s.State == Ended { // the first is not disturbed
		t.Fatalf("%+v, %v", s, err)
	}
}

func TestFailedBootLeavesNothing(t *testing.T) {
	d := &scripted{refuse: banger.Errorf(banger.NotFound, "no kernel").Hint("pull one")}
	dir := vmDir(t, testLaunch())
	opts := Options{Driver: func(string) (vmm.Driver, error) { return d, nil }, Network: testNetwork, Layers: testLayers}
	_, err := open(t.Context(), dir, opts, slog.New(slog.DiscardHandler))
	if banger.CodeOf(err) != banger.NotFound || len(banger.HintsOf(err)) != 1 {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(dir.ShimSocket()); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the socket is there: %v", err)
	}
	if _, alive, _ := Alive(dir); alive {
		t.Fatal("the lock is held")
	}
	if _, err := Dial(t.Context(), dir); banger.CodeOf(err) != banger.NotRunning {
		t.Fatalf("dial gave %v", err)
	}
}

func TestGrownDiskIsGrownInTheGuestToo(t *testing.T) {
	l := testLaunch()
	l.Setup.DiskBytes = 1 << 30
	r := newRig(t, &scripted{agent: echo}, l)
	r.await(t, r.is(Running))
	if err := r.GrowDisk(t.Context(), "disk", 2<<30); err != nil {
		t.Fatal(err)
	}
	if got := r.machine.setup.Load().DiskBytes; got != 2<<30 {
		t.Fatalf("the guest was told of %d bytes", got)
	}
}
