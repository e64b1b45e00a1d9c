package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"banger"
	"banger/client"
	"banger/internal/api"
	"banger/internal/daemon"
	"banger/internal/vm"
)

// gate is a Create that waits in its middle.
type gate struct {
	entered chan struct{}
	leave   chan error // what to return
	undone  chan error // why it was cancelled
}

func newGate() *gate {
	return &gate{make(chan struct{}), make(chan error), make(chan error, 1)}
}

func (g *gate) create(ctx context.Context, c vm.Create, p vm.Progress) error {
	p.Stage("prepare " + c.Name)
	close(g.entered)
	select {
	case err := <-g.leave:
		return err
	case <-ctx.Done():
		g.undone <- context.Cause(ctx)
		return ctx.Err()
	}
}

func only(t *testing.T, c *client.Client) api.Operation {
	t.Helper()
	all, err := c.Operations(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("operations: %v %v", all, err)
	}
	return all[0]
}

func TestStagesArriveWhileTheOperationRuns(t *testing.T) {
	g := newGate()
	h := open(t, &fakeVMs{create: func(ctx context.Context, c vm.Create, p vm.Progress) error {
		p.Stage("first")
		p.Warn("careful")
		return g.create(ctx, c, p)
	}})
	var heard []string
	made, err := h.client.CreateVM(t.Context(), api.CreateVM{Name: "box"}, func(e api.Event) {
		if heard = append(heard, e.Stage+e.Warning); len(heard) == 4 {
			running := only(t, h.client)
			if running.State != "running" || running.Kind != "vm.create" || running.Subject != "box" || running.Stage != "prepare box" {
				t.Errorf("while it runs: %+v", running)
			}
			close(g.leave) // only the last stage lets it go on
		}
	})
	if want := []string{"", "first", "careful", "prepare box"}; err != nil || made.Name != "box" || !slices.Equal(heard, want) {
		t.Fatalf("heard %q, got %+v %v", heard, made, err)
	}
	if done := only(t, h.client); done.State != "done" || done.EndedAt.IsZero() {
		t.Errorf("after its end: %+v", done)
	}
}

func TestAClientThatGoesAwayCancelsItsOperation(t *testing.T) {
	g := newGate()
	h := open(t, &fakeVMs{create: g.create})
	ctx, goAway := context.WithCancel(t.Context())
	defer goAway()
	go func() {
		<-g.entered
		goAway()
	}()
	// Not the typed client, which says goodbye.
	if _, err := h.post(ctx, "/v1/vms", `{"name":"box"}`); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if why := <-g.undone; why == nil || !strings.Contains(why.Error(), "client went away") {
		t.Errorf("cancelled because: %v", why)
	}
	// The list is right once the operation's end was recorded, which
	// ending the daemon waits for.
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(h.log(t), `"kind":"vm.create","subject":"box","state":"cancelled"`) {
		t.Errorf("the log: %s", h.log(t))
	}
}

func TestACancelledCallWaitsUntilAllIsUndone(t *testing.T) {
	undoing, undone := make(chan struct{}), make(chan struct{})
	g := newGate()
	h := open(t, &fakeVMs{create: func(ctx context.Context, c vm.Create, p vm.Progress) error {
		err := g.create(ctx, c, p)
		close(undoing)
		<-undone
		return err
	}})
	ctx, interrupt := context.WithCancel(t.Context())
	returned := make(chan error)
	go func() {
		_, err := h.client.CreateVM(ctx, api.CreateVM{Name: "box"}, nil)
		returned <- err
	}()
	<-g.entered
	interrupt()
	<-undoing
	select {
	case err := <-returned:
		t.Fatalf("the call came back before the undo ended: %v", err)
	default:
	}
	close(undone)
	err := <-returned
	var e *banger.Error
	if !errors.As(err, &e) || e.Code != banger.Cancelled || e.OperationID == "" {
		t.Errorf("got %+v", err)
	}
	if op := only(t, h.client); op.State != "cancelled" || op.Error.Code != banger.Cancelled {
		t.Errorf("listed as %+v", op)
	}
}

func TestOperationsCanBeCancelledByTheirID(t *testing.T) {
	g := newGate()
	h := open(t, &fakeVMs{create: g.create})
	var id string
	_, err := h.client.CreateVM(t.Context(), api.CreateVM{Name: "box"}, func(e api.Event) {
		if e.OperationID != "" {
			id = e.OperationID
			<-g.entered
			if err := h.client.CancelOperation(t.Context(), id[:12]); err != nil {
				t.Error(err)
			}
		}
	})
	if banger.CodeOf(err) != banger.Cancelled || !strings.Contains(err.Error(), "create of VM box") {
		t.Errorf("got %v", err)
	}
	if op, err := h.client.Operation(t.Context(), id); err != nil || op.State != "cancelled" {
		t.Errorf("%+v %v", op, err)
	}
	if err := h.client.CancelOperation(t.Context(), id); err != nil {
		t.Errorf("cancelling what has ended: %v", err)
	}
}

func TestErrorsKeepCodeHintsAndOperation(t *testing.T) {
	h := open(t, &fakeVMs{})
	made, err := h.client.CreateVM(t.Context(), api.CreateVM{Name: "box"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.client.StopVM(t.Context(), made.ID[:8], api.StopVM{TimeoutSeconds: 2.5}, nil)
	var e *banger.Error
	if !errors.As(err, &e) || e.Code != banger.NotRunning || e.Message != "cannot stop it within 2.5s" ||
		!slices.Equal(e.Hints, []string{"first hint", "second"}) || !banger.IsID(e.OperationID) {
		t.Errorf("got %#v", err)
	}
}

// What work meets is no mistake of who asked for it: the request was accepted.
func TestWorkThatHadBegunIsNoBadRequest(t *testing.T) {
	h := open(t, &fakeVMs{create: func(context.Context, vm.Create, vm.Progress) error {
		return banger.Errorf(banger.BadRequest, "cannot use the file").Hint("take another")
	}})
	_, err := h.client.CreateVM(t.Context(), api.CreateVM{Name: "box"}, nil)
	if banger.CodeOf(err) != banger.Conflict || err.Error() != "cannot use the file" || !slices.Equal(banger.HintsOf(err), []string{"take another"}) {
		t.Errorf("got %#v", err)
	}
}

// Whatever failed can be found in the log by the id that the person was shown.
func TestFailuresAreInTheLogUnderTheirID(t *testing.T) {
	h := open(t, &fakeVMs{})
	if _, err := h.client.CreateVM(t.Context(), api.CreateVM{Name: "box"}, nil); err != nil {
		t.Fatal(err)
	}
	h.vms.create = func(context.Context, vm.Create, vm.Progress) error {
		return banger.Errorf(banger.Busy, "cannot create it now")
	}
	for what, act := range map[string]func() error{
		"operation": func() error {
			_, err := h.client.CreateVM(t.Context(), api.CreateVM{Name: "other"}, nil)
			return err
		},
		"operation that never began": func() error {
			_, err := h.client.StopVM(t.Context(), "nobody", api.StopVM{}, nil)
			return err
		},
		"request": func() error {
			_, err := h.client.ChangeVM(t.Context(), "nobody", api.ChangeVM{Name: new("other")})
			return err
		},
		"deletion": func() error { return h.client.DeleteImage(t.Context(), "nothing") },
	} {
		err := act()
		var e *banger.Error
		if !errors.As(err, &e) || !banger.IsID(e.OperationID) {
			t.Errorf("%s: got %#v", what, err)
			continue
		}
		if line := lineWith(h.log(t), e.OperationID); !strings.Contains(line, `"error":`+strconv.Quote(e.Message)) {
			t.Errorf("%s: the log has %q of %q", what, line, e.Message)
		}
	}
	if _, err := h.client.VM(t.Context(), "nobody"); err == nil || strings.Contains(h.log(t), "vm.show") {
		t.Errorf("a question was logged, or %v", err)
	}
}

// lineWith is the last line that has the text.
func lineWith(log, text string) (last string) {
	for line := range strings.Lines(log) {
		if strings.Contains(line, text) {
			last = line
		}
	}
	return last
}

func TestALevelOfTheLogCountsAtOnce(t *testing.T) {
	t.Setenv("BANGER_LOG_LEVEL", "")
	h := open(t, &fakeVMs{})
	level := func(text string) {
		t.Helper()
		file := h.dirs.ConfigFile()
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte("log_level = \""+text+"\"\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
		if _, err := h.client.Config(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		level  string
		logged bool
	}{{"error", false}, {"info", true}} {
		level(c.level)
		before := len(h.log(t))
		if err := h.client.DeleteImage(t.Context(), "nothing"); err == nil {
			t.Fatal("an image that is not there was deleted")
		}
		if got := len(h.log(t)) > before; got != c.logged {
			t.Errorf("at %s a line was written: %v", c.level, got)
		}
	}
}

func TestInternalErrorsAreLoggedOnceAndShownWithoutTheirInsides(t *testing.T) {
	for name, act := range map[string]func(*house) error{
		"request": func(h *house) error {
			_, err := h.client.PauseVM(t.Context(), "box")
			return err
		},
		"operation": func(h *house) error {
			h.vms.create = func(context.Context, vm.Create, vm.Progress) error {
				return banger.Errorf(banger.Internal, "cannot think: %w", errors.New("secret insides"))
			}
			_, err := h.client.CreateVM(t.Context(), api.CreateVM{Name: "other"}, nil)
			return err
		},
		"panic": func(h *house) error {
			h.vms.create = func(context.Context, vm.Create, vm.Progress) error { panic("secret insides") }
			_, err := h.client.CreateVM(t.Context(), api.CreateVM{Name: "other"}, nil)
			return err
		},
		"panic in a request": func(h *house) error {
			_, err := h.client.ResumeVM(t.Context(), "box") // which the fake lacks
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := open(t, &fakeVMs{})
			if _, err := h.client.CreateVM(t.Context(), api.CreateVM{Name: "box"}, nil); err != nil {
				t.Fatal(err)
			}
			err := act(h)
			var e *banger.Error
			if !errors.As(err, &e) || e.Code != banger.Internal || !banger.IsID(e.OperationID) || strings.Contains(e.Message, "secret") {
				t.Fatalf("got %#v", err)
			}
			// An operation's own end is logged with its id too.
			log := h.log(t)
			if n := strings.Count(log, `"level":"ERROR"`); n != 1 || !strings.Contains(log, e.OperationID) {
				t.Errorf("%d errors in the log: %s", n, log)
			}
			if name != "panic in a request" && strings.Count(log, "secret insides") != 1 {
				t.Errorf("the log: %s", log)
			}
		})
	}
}

func TestOnlyTheLastOperationsAreRemembered(t *testing.T) {
	h := open(t, &fakeVMs{})
	for n := range daemon.KeepDone + 5 {
		if _, err := h.client.CreateVM(t.Context(), api.CreateVM{Name: fmt.Sprintf("box-%d", n)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	all, err := h.client.Operations(t.Context())
	if err != nil || len(all) != daemon.KeepDone || all[0].Subject != fmt.Sprintf("box-%d", daemon.KeepDone+4) {
		t.Errorf("%d operations, %v first; %v", len(all), all[0], err)
	}
}

func TestABusyDaemonStopsOnlyByForce(t *testing.T) {
	g := newGate()
	h := open(t, &fakeVMs{create: g.create})
	returned := make(chan error)
	go func() {
		_, err := h.client.CreateVM(t.Context(), api.CreateVM{Name: "box"}, nil)
		returned <- err
	}()
	<-g.entered
	err := h.client.StopDaemon(t.Context(), false)
	if banger.CodeOf(err) != banger.Busy || !strings.Contains(err.Error(), "create of VM box") {
		t.Fatalf("got %v", err)
	}
	if _, err := h.client.VMs(t.Context()); err != nil {
		t.Fatalf("after the refusal: %v", err)
	}
	if err := h.client.StopDaemon(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if err := <-returned; banger.CodeOf(err) != banger.Cancelled || !strings.Contains(err.Error(), "daemon is stopping") {
		t.Errorf("the operation: %v", err)
	}
	if err := h.stop(); err != nil {
		t.Error(err)
	}
}

func TestASignalLetsOperationsComeToTheirEnd(t *testing.T) {
	g := newGate()
	h := open(t, &fakeVMs{create: g.create})
	returned := make(chan error)
	go func() {
		made, err := h.client.CreateVM(t.Context(), api.CreateVM{Name: "box"}, nil)
		if made.Name != "box" && err == nil {
			err = fmt.Errorf("got %+v", made)
		}
		returned <- err
	}()
	<-g.entered
	ended := make(chan error)
	go func() { ended <- h.stop() }()
	// The socket goes at once, the operation does not.
	for {
		if _, err := os.Lstat(h.dirs.Socket()); err != nil {
			break
		}
	}
	g.leave <- nil
	if err := <-returned; err != nil {
		t.Errorf("the operation: %v", err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestABusyDaemonOfAnotherBuildIsUsedWithOneWarning(t *testing.T) {
	g := newGate()
	h := open(t, &fakeVMs{create: g.create})
	returned := make(chan error)
	go func() {
		_, err := h.client.CreateVM(t.Context(), api.CreateVM{Name: "box"}, nil)
		returned <- err
	}()
	<-g.entered
	var warnings []string
	c, err := client.Connect(t.Context(), h.dirs, client.Options{
		Exe: "/bin/false", BuildID: "another", Warn: func(m string) { warnings = append(warnings, m) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 2 {
		if _, err := c.VMs(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "busy") {
		t.Errorf("warnings: %q", warnings)
	}
	g.leave <- nil
	if err := <-returned; err != nil {
		t.Errorf("the operation: %v", err)
	}
	// Idle now, it makes way, and here no other can be started.
	if _, err := c.VMs(t.Context()); banger.CodeOf(err) != banger.Unavailable || !strings.Contains(err.Error(), "cannot start") && !strings.Contains(err.Error(), "without a word") {
		t.Errorf("got %v", err)
	}
}
