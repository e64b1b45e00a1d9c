package shim

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/vmm"
)

// said is what the VMM was told so far.
func (m *scriptedMachine) said() (all []string) {
	for {
		select {
		case s := <-m.pauses:
			all = append(all, s)
		default:
			return all
		}
	}
}

func (r *rig) awaitSetups(t *testing.T, n int32) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); r.machine.setups.Load() != n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the guest was set up %d times, not %d", r.machine.setups.Load(), n)
		}
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	all, err := entries(dir)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestSavedVMRunsOnWithItsClockSet(t *testing.T) {
	l := testLaunch()
	l.Machine.VCPU = 3
	r := newRig(t, &scripted{agent: echo}, l)
	dir := t.TempDir()
	saved, err := r.Save(t.Context(), SaveRequest{Dir: dir}) // waits for the guest
	if err != nil || saved.Driver != "scripted" || saved.Machine.VCPU != 3 || saved.PauseMillis <= 0 {
		t.Fatalf("%+v, %v", saved, err)
	}
	if token := r.shim.present().token; !bytes.Equal(saved.Token, token[:]) {
		t.Errorf("token %x, the link has %x", saved.Token, token)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"memory", "state"}) {
		t.Errorf("it left %q", got)
	}
	if said := r.machine.said(); !slices.Equal(said, []string{"save", "resume"}) {
		t.Errorf("the VMM was told %q", said)
	}
	r.awaitSetups(t, 2)
	if _, status, err := run(t, r.Conn(), "still"); status != 7 || err != nil {
		t.Fatalf("status %d, %v", status, err)
	}
}

func TestMemoryIsSavedIntoAFileOfTheCallers(t *testing.T) {
	r := newRig(t, &scripted{agent: echo}, testLaunch())
	dir := t.TempDir()
	memory, err := vmm.NewMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	request := SaveRequest{Dir: dir, Memory: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), memory.Fd())}
	if _, err := r.Save(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(memory)
	if got := names(t, dir); string(text) != "memory" || err != nil || !slices.Equal(got, []string{"state"}) {
		t.Fatalf("memory %q, %v; it left %q", text, err, got)
	}
}

// The number of a file may be another one's by the time a shim looks.
func TestMemoryIsSavedIntoNoOtherFile(t *testing.T) {
	r := newRig(t, &scripted{agent: echo}, testLaunch())
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	used, err := vmm.SealedCopy(file)
	if err != nil {
		t.Fatal(err)
	}
	defer used.Close()
	for _, memory := range []string{file, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), used.Fd())} {
		dir := t.TempDir()
		if _, err := r.Save(t.Context(), SaveRequest{Dir: dir, Memory: memory}); banger.CodeOf(err) != banger.BadRequest {
			t.Errorf("%s gave %v", memory, err)
		}
		if got := names(t, dir); len(got) > 0 {
			t.Errorf("it left %q", got)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Size() > 0 {
		t.Errorf("the file was written to: %v", err)
	}
}

func TestSavedVMThatWasPausedStaysPaused(t *testing.T) {
	r := newRig(t, &scripted{agent: echo}, testLaunch())
	r.await(t, r.is(Running))
	if err := r.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	saved, err := r.Save(t.Context(), SaveRequest{Dir: t.TempDir()})
	if err != nil || saved.PauseMillis != 0 {
		t.Fatalf("%+v, %v", saved, err)
	}
	if said := r.machine.said(); !slices.Equal(said, []string{"pause", "save"}) {
		t.Errorf("the VMM was told %q", said)
	}
	if s, err := r.Status(t.Context()); err != nil || s.State != Paused {
		t.Fatalf("%+v, %v", s, err)
	}
}

func TestSaveNeedsAGuestThatIsUp(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, r *rig){
		"that never comes up": func(t *testing.T, r *rig) { r.await(t, func(s Status) bool { return s.Problem != "" }) },
		"that was paused before": func(t *testing.T, r *rig) {
			if err := r.Pause(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := testLaunch()
			l.ReadyTimeout = time.Millisecond
			r := newRig(t, &scripted{}, l)
			prepare(t, r)
			dir := t.TempDir()
			if _, err := r.Save(t.Context(), SaveRequest{Dir: dir}); banger.CodeOf(err) != banger.Unavailable {
				t.Errorf("save gave %v", err)
			}
			if _, err := r.Suspend(t.Context()); banger.CodeOf(err) != banger.Unavailable {
				t.Errorf("suspend gave %v", err)
			}
		})
	}
}

func TestFailedSaveLeavesNothing(t *testing.T) {
	full := banger.Wrap(&os.PathError{Op: "write", Path: "memory", Err: syscall.ENOSPC}, "cannot save the machine")
	d := &scripted{agent: echo, save: func(_ context.Context, _ *scriptedMachine, to vmm.Saved) error {
		return os.WriteFile(to.State+".half", nil, 0o600)
	}}
	r := newRig(t, d, testLaunch())
	dir := t.TempDir()
	keep := filepath.Join(dir, "keep")
	if err := os.WriteFile(keep, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	half := d.save
	d.save = func(ctx context.Context, m *scriptedMachine, to vmm.Saved) error {
		_ = half(ctx, m, to)
		return full
	}
	if _, err := r.Save(t.Context(), SaveRequest{Dir: dir}); banger.CodeOf(err) != banger.NoSpace || len(banger.HintsOf(err)) != 1 {
		t.Fatalf("got %v, hints %q", err, banger.HintsOf(err))
	}
	if got := names(t, dir); !slices.Equal(got, []string{"keep"}) {
		t.Errorf("it left %q", got)
	}
	if _, err := r.Suspend(t.Context()); banger.CodeOf(err) != banger.NoSpace {
		t.Fatalf("got %v", err)
	}
	r.await(t, r.is(Running))
	if got := names(t, string(r.dir)); slices.ContainsFunc(got, func(n string) bool { return n == "suspended" || n[:2] == ".t" }) {
		t.Errorf("it left %q", got)
	}
	if _, err := r.Save(t.Context(), SaveRequest{Dir: "here"}); banger.CodeOf(err) != banger.BadRequest {
		t.Errorf("a relative path: %v", err)
	}
}

// saving is a rig in the middle of a Save, which waits for go or its end.
func saving(t *testing.T, save func(*rig) error) (r *rig, proceed chan struct{}, result chan error) {
	t.Helper()
	began := make(chan struct{})
	proceed, result = make(chan struct{}), make(chan error, 1)
	d := &scripted{agent: echo}
	d.save = func(ctx context.Context, m *scriptedMachine, _ vmm.Saved) error {
		close(began)
		select {
		case <-proceed:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-m.done:
			return banger.Errorf(banger.NotRunning, "the machine has ended")
		}
	}
	r = newRig(t, d, testLaunch())
	go func() { result <- save(r) }()
	<-began
	return r, proceed, result
}

var bothSaves = map[string]func(*rig) error{
	"save": func(r *rig) error {
		_, err := r.Save(context.Background(), SaveRequest{Dir: string(r.dir)})
		return err
	},
	"suspend": func(r *rig) error { _, err := r.Suspend(context.Background()); return err },
}

func TestStopWinsOverASave(t *testing.T) {
	for name, save := range bothSaves {
		t.Run(name, func(t *testing.T) {
			r, _, result := saving(t, save)
			e, err := r.Stop(t.Context(), time.Minute)
			if err != nil || e.Reason != ReasonStopped || e.VMM.Reason != vmm.Poweroff {
				t.Errorf("%+v, %v", e, err)
			}
			if err := <-result; banger.CodeOf(err) != banger.NotRunning {
				t.Errorf("the save gave %v", err)
			}
			if s, err := ReadSuspended(r.dir); s != nil || err != nil {
				t.Errorf("suspended %+v, %v", s, err)
			}
		})
	}
}

func TestKillInASaveWorksAtOnce(t *testing.T) {
	for name, save := range bothSaves {
		t.Run(name, func(t *testing.T) {
			r, _, result := saving(t, save)
			e, err := r.Kill(t.Context(), syscall.SIGKILL)
			if err != nil || e.Reason != ReasonKilled {
				t.Errorf("%+v, %v", e, err)
			}
			if err := <-result; banger.CodeOf(err) != banger.NotRunning {
				t.Errorf("the save gave %v", err)
			}
			if s, err := ReadSuspended(r.dir); s != nil || err != nil {
				t.Errorf("suspended %+v, %v", s, err)
			}
		})
	}
}

func TestOthersWaitForASave(t *testing.T) {
	r, proceed, result := saving(t, bothSaves["save"])
	done := make(chan error, 1)
	go func() {
		err := r.Pause(context.Background())
		if err == nil {
			err = r.Resume(context.Background())
		}
		done <- err
	}()
	close(proceed)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if said := r.machine.said(); !slices.Equal(said, []string{"save", "resume", "pause", "resume"}) {
		t.Fatalf("the VMM was told %q", said)
	}
}

// What is saved is synced, which cannot be interrupted and may take minutes.
func TestStopLetsASlowSaveEndBeforeItCountsTime(t *testing.T) {
	began, proceed, result := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	d := &scripted{agent: echo, save: func(context.Context, *scriptedMachine, vmm.Saved) error {
		close(began)
		<-proceed
		return nil
	}}
	r := newRig(t, d, testLaunch())
	r.shim.margin = time.Second / 2
	go func() { _, err := r.Suspend(context.Background()); result <- err }()
	<-began
	stopped := make(chan Exit, 1)
	go func() { e, _ := r.Stop(context.Background(), 0); stopped <- e }()
	r.await(t, r.is(Stopping))
	for begun := time.Now(); time.Since(begun) < 2*r.shim.margin; {
		if s, err := r.Status(t.Context()); err != nil || s.State != Stopping {
			t.Fatalf("%+v, %v", s, err)
		}
	}
	r.shim.margin = time.Minute // of which nothing has gone by
	close(proceed)
	if err := <-result; banger.CodeOf(err) != banger.NotRunning {
		t.Errorf("the suspension gave %v", err)
	}
	if e := <-stopped; e.VMM.Reason != vmm.Poweroff {
		t.Errorf("%+v", e)
	}
}

// A save that fails may still make a layer, which the next machine must know of.
func TestGuestThatRebootsInASaveIsBootedAfterIt(t *testing.T) {
	began, proceed, result := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	d := &scripted{agent: echo, save: func(context.Context, *scriptedMachine, vmm.Saved) error {
		close(began)
		<-proceed
		return banger.Errorf(banger.NotRunning, "the machine has ended")
	}}
	r := newRig(t, d, testLaunch())
	go func() {
		_, err := r.Save(context.Background(), SaveRequest{Dir: string(r.dir)})
		result <- err
	}()
	<-began
	r.machine.end(vmm.Exit{Reason: vmm.Reset})
	r.await(t, func(s Status) bool { return s.Problem != "" })
	for range 50 { // a boot would not take that long
		if s, err := r.Status(t.Context()); err != nil || s.Boots != 1 {
			t.Fatalf("%+v, %v", s, err)
		}
	}
	close(proceed)
	if err := <-result; banger.CodeOf(err) != banger.NotRunning {
		t.Errorf("the save gave %v", err)
	}
	r.await(t, func(s Status) bool { return s.Boots == 2 && s.State == Running })
}

func TestClientThatLeavesEndsItsSave(t *testing.T) {
	var c *Client
	r, _, result := saving(t, func(r *rig) (err error) {
		if c, err = Dial(context.Background(), r.dir); err != nil {
			return err
		}
		_, err = c.Save(context.Background(), SaveRequest{Dir: string(r.dir)})
		return err
	})
	_ = c.Close()
	if err := <-result; err == nil {
		t.Fatal("it went well")
	}
	r.shim.driver.(*scripted).save = nil
	if _, err := r.Save(t.Context(), SaveRequest{Dir: t.TempDir()}); err != nil { // has the turn
		t.Fatal(err)
	}
}
