package shim

import (
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/guestlink"
	"banger/internal/guestwire"
	"banger/internal/vmm"
)

func TestStreamReachesTheGuestAndItsResultComesBack(t *testing.T) {
	r := newRig(t, &scripted{agent: echo}, testLaunch())
	input := strings.Repeat("0123456789abcdef", 100_000)
	if out, status, err := run(t, r.Conn(), input); out != input || status != 7 || err != nil {
		t.Fatalf("%d bytes, status %d, %v", len(out), status, err)
	}
}

func TestSignalPassesStdinThatNobodyReads(t *testing.T) {
	r := newRig(t, &scripted{agent: func(s *guestwire.Stream) {
		c, _ := s.NextControl() // never reads stdin
		sig, _ := c.Signal()
		s.Finish(guestwire.Exit{Status: 128 + sig}.Append(nil))
	}}, testLaunch())
	s, err := r.Conn().Open(guestwire.KindExec, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Writer(guestwire.Stdin).Write(make([]byte, guestwire.Window)); err != nil {
		t.Fatal(err)
	}
	if err := s.Control(guestwire.SignalControl(15)); err != nil {
		t.Fatal(err)
	}
	body, err := s.Wait(t.Context())
	if exit, _ := guestwire.ParseExit(body); exit.Status != 143 || err != nil {
		t.Fatalf("status %d, %v", exit.Status, err)
	}
}

func TestCallsPassThroughToTheAgent(t *testing.T) {
	r := newRig(t, &scripted{agent: echo}, testLaunch())
	h, err := r.Guest().Stat(t.Context(), "/etc") // the scripted agent answers with the question
	if err != nil || h.Exists {
		t.Fatalf("%+v, %v", h, err)
	}
}

func TestStreamWaitsForAGuestThatBoots(t *testing.T) {
	d := &scripted{}
	r := newRig(t, d, testLaunch())
	r.await(t, r.is(Booting))
	got := make(chan error, 1)
	go func() {
		_, status, err := run(t, r.Conn(), "x")
		if err == nil && status != 7 {
			err = errors.New("wrong status")
		}
		got <- err
	}()
	r.awaitStreams(t, 1)
	d.agent = echo
	r.machine.comeUp()
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

func TestGuestThatNeverComesUpIsNamedAndKept(t *testing.T) {
	d := &scripted{}
	l := testLaunch()
	l.ReadyTimeout = time.Millisecond
	r := newRig(t, d, l)
	_, _, err := run(t, r.Conn(), "")
	err = guestlink.Error(err)
	if banger.CodeOf(err) != banger.Unavailable || !strings.Contains(err.Error(), "did not come up within 1ms") {
		t.Fatalf("got %v", err)
	}
	if hints := banger.HintsOf(err); len(hints) != 1 || hints[0] != "banger vm logs devbox" {
		t.Fatalf("hints %q", hints)
	}
	if s, err := r.Status(t.Context()); err != nil || s.State != Booting || s.Problem == "" {
		t.Fatalf("%+v, %v", s, err)
	}
	d.agent = echo
	r.machine.comeUp()
	r.await(t, func(s Status) bool { return s.State == Running && s.Problem == "" })
	if _, status, err := run(t, r.Conn(), "late"); status != 7 || err != nil {
		t.Fatalf("status %d, %v", status, err)
	}
}

func TestPausedVMRefusesStreams(t *testing.T) {
	r := newRig(t, &scripted{agent: echo}, testLaunch())
	r.await(t, r.is(Running))
	if err := r.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, _, err := run(t, r.Conn(), "")
	err = guestlink.Error(err)
	if hints := banger.HintsOf(err); banger.CodeOf(err) != banger.NotRunning || len(hints) != 1 || hints[0] != "banger vm resume devbox" {
		t.Fatalf("got %v with %q", err, hints)
	}
	if err := r.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, status, err := run(t, r.Conn(), ""); status != 7 || err != nil {
		t.Fatalf("status %d, %v", status, err)
	}
}

func TestClientThatVanishesAbandonsItsStream(t *testing.T) {
	started, ended := make(chan struct{}), make(chan error, 1)
	r := newRig(t, &scripted{agent: func(s *guestwire.Stream) {
		close(started)
		<-s.Done()
		ended <- s.Err()
	}}, testLaunch())
	other, err := Dial(t.Context(), r.dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Conn().Open(guestwire.KindExec, nil); err != nil {
		t.Fatal(err)
	}
	<-started
	_ = other.Close()
	if err := <-ended; !errors.Is(err, guestwire.ErrReset) {
		t.Fatalf("the guest saw %v", err)
	}
	r.awaitStreams(t, 0)
}

func TestClientThatReadsNothingDelaysNoOther(t *testing.T) {
	flood := func(s *guestwire.Stream) {
		if string(s.Body) != "flood" {
			echo(s)
			return
		}
		w := s.Writer(guestwire.Stdout)
		for {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}
	r := newRig(t, &scripted{agent: flood}, testLaunch())
	// A client that never reads its socket at all.
	raw, err := dialSocket(t.Context(), r.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	w := guestwire.NewWriter(raw)
	hello := append([]byte("bngr\x00\x01\x00\x00"), make([]byte, guestwire.TokenLen)...)
	if err := w.Write(guestwire.TypeHello, hello, nil); err != nil {
		t.Fatal(err)
	}
	for id := byte(1); id <= 8; id++ {
		if err := w.Write(guestwire.TypeOpen, []byte{0, 0, 0, id, byte(guestwire.KindExec)}, []byte("flood")); err != nil {
			t.Fatal(err)
		}
	}
	r.awaitStreams(t, 8)
	for range 20 {
		if out, status, err := run(t, r.Conn(), "hello"); out != "hello" || status != 7 || err != nil {
			t.Fatalf("%q, status %d, %v", out, status, err)
		}
	}
}

func TestStreamLostWithTheVMSaysWhy(t *testing.T) {
	started := make(chan struct{})
	r := newRig(t, &scripted{agent: func(s *guestwire.Stream) { close(started); <-s.Done() }}, testLaunch())
	s, err := r.Conn().Open(guestwire.KindExec, nil)
	if err != nil {
		t.Fatal(err)
	}
	<-started
	if _, err := r.Kill(t.Context(), killSignal); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, s.Reader(guestwire.Stdout))
	_, err = s.Wait(t.Context())
	err = guestlink.Error(err)
	if banger.CodeOf(err) != banger.Unavailable || !strings.Contains(err.Error(), "it was killed") {
		t.Fatalf("got %v", err)
	}
}

func TestStreamLostInARebootSaysSo(t *testing.T) {
	started := make(chan struct{})
	r := newRig(t, &scripted{agent: func(s *guestwire.Stream) { close(started); <-s.Done() }}, testLaunch())
	s, err := r.Conn().Open(guestwire.KindExec, nil)
	if err != nil {
		t.Fatal(err)
	}
	<-started
	r.machine.end(vmm.Exit{Reason: vmm.Reset})
	_, err = s.Wait(t.Context())
	err = guestlink.Error(err)
	if banger.CodeOf(err) != banger.Unavailable || !strings.Contains(err.Error(), "rebooted") {
		t.Fatalf("got %v", err)
	}
}

func TestAgentThatIsLostIsNamedAndStopStillEndsTheVM(t *testing.T) {
	r := newRig(t, &scripted{agent: echo}, testLaunch())
	r.await(t, r.is(Running))
	_ = r.machine.guest.Close()
	r.await(t, func(s Status) bool { return s.State == Running && strings.Contains(s.Problem, "agent was lost") })
	_, _, err := run(t, r.Conn(), "")
	if err = guestlink.Error(err); banger.CodeOf(err) != banger.Unavailable || len(banger.HintsOf(err)) != 1 {
		t.Fatalf("got %v", err)
	}
	if e, err := r.Stop(t.Context(), time.Minute); err != nil || e.Reason != ReasonStopped {
		t.Fatalf("%+v, %v", e, err)
	}
}

func TestUnknownMethodNamesTheRemedy(t *testing.T) {
	r := newRig(t, &scripted{agent: echo}, testLaunch())
	err := r.call(t.Context(), "levitate", nil, nil)
	if banger.CodeOf(err) != banger.UnknownMethod || len(banger.HintsOf(err)) != 1 {
		t.Fatalf("got %v with %q", err, banger.HintsOf(err))
	}
}

// On a busy host it may be a while from the loss of the link to the end of the machine.
func TestStreamIsToldOfAKillThatTakesItsTime(t *testing.T) {
	r := newRig(t, &scripted{agent: echo, dying: lostBound + time.Second}, testLaunch())
	s, err := r.Conn().Open(guestwire.KindExec, guestwire.Exec{Argv: []string{"cat"}, Stdin: true}.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	r.awaitStreams(t, 1)
	go func() { _ = r.shim.kill(ReasonKilled, syscall.SIGKILL) }()
	if _, err := s.Wait(t.Context()); err == nil || !strings.Contains(err.Error(), "the guest is gone: it was killed") {
		t.Errorf("the stream ended with %v", err)
	}
}
