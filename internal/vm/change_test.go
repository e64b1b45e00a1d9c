package vm

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"banger"
	"banger/internal/shim"
)

// must is for what has to go well.
func must(t *testing.T, v View, err error) View {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestStopAndStart(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true})
	for range 2 { // stopping twice is no error
		v, err := w.Stop(t.Context(), v.ID, 0, quiet{})
		if must(t, v, err).State != banger.StateStopped || v.ShimPID != 0 || v.Runtime.EndedAt.IsZero() {
			t.Errorf("got %+v", v)
		}
		w.want("dir vms/devbox", "row devbox stopped")
	}
	for range 2 { // and so is starting twice
		v, err := w.Start(t.Context(), v.ID, false, true, quiet{})
		if must(t, v, err).State != banger.StateRunning || v.Runtime.BootCount != 2 || !v.Runtime.EndedAt.IsZero() {
			t.Errorf("got %+v", v)
		}
		w.want("dir vms/devbox", "process devbox", "row devbox running")
	}
}

func TestCancelledWaitLeavesAVMThatExistedRunning(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox"})
	w.shims.guest = func(*fakeShim) {} // never comes up
	ctx, cancel := context.WithCancel(t.Context())
	_, err := w.Start(ctx, v.ID, false, true, onStage(func(s string) {
		if s == "wait for guest" {
			cancel()
		}
	}))
	if banger.CodeOf(err) != banger.Cancelled {
		t.Error(err)
	}
	w.want("dir vms/devbox", "process devbox", "row devbox running")
}

func TestStartOfAVMWhoseCreationCouldNotBeUndoneKeepsIt(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox"})
	if err := w.creating(v.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Start(t.Context(), v.ID, false, true, quiet{}); err != nil {
		t.Fatal(err)
	}
	w.reconcile()
	w.want("dir vms/devbox", "process devbox", "row devbox running")
}

func TestWhatWasDoneIsNotCancelledWhenItsRequestEnds(t *testing.T) {
	for name, do := range map[string]func(w *world, ctx context.Context, id string) (View, error){
		"create": func(w *world, ctx context.Context, _ string) (View, error) {
			return w.Create(ctx, Create{Name: "another"}, quiet{})
		},
		"stop": func(w *world, ctx context.Context, id string) (View, error) { return w.Stop(ctx, id, 0, quiet{}) },
		"kill": func(w *world, ctx context.Context, id string) (View, error) { return w.Kill(ctx, id, "") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			v := w.create(Create{Name: "devbox", Start: true, Wait: true})
			ctx, cancel := context.WithCancel(t.Context())
			w.db.written = cancel
			if v, err := do(w, ctx, v.ID); err != nil || ctx.Err() == nil || v.State.Live() {
				t.Errorf("got %+v, %v; %v", v, err, ctx.Err())
			}
		})
	}
}

func TestRestartIsAnotherRun(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true})
	first := w.shims.vms[v.ID]
	v, err := w.Restart(t.Context(), v.ID, time.Second, quiet{})
	if must(t, v, err).Runtime.BootCount != 2 || first.alive() || v.State != banger.StateRunning {
		t.Errorf("got %+v", v)
	}
}

func TestNothingThatEndsAnEphemeralVMIsDoneOrAdvisedForAnotherRun(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true, Ephemeral: true})
	_, restart := w.Restart(t.Context(), v.ID, time.Second, quiet{})
	_, _, set := w.Set(t.Context(), v.ID, Set{MemoryMiB: 300}, quiet{})
	visit := w.Visit(t.Context(), v.ID, quiet{}, func(context.Context) error { return nil })
	for name, err := range map[string]error{"restart": restart, "set": set, "visit": visit} {
		if hints := banger.HintsOf(err); banger.CodeOf(err) != banger.Conflict || len(hints) != 1 || hints[0] != "make the VM without --rm" {
			t.Errorf("%s: got %v, hints %q", name, err, hints)
		}
	}
	w.want("dir vms/devbox", "process devbox", "row devbox running")
}

func TestEndOfAnEphemeralVMGoesWellAndRemovesIt(t *testing.T) {
	w := newWorld(t)
	for name, end := range map[string]func(id string) (View, error){
		"stop": func(id string) (View, error) { return w.Stop(t.Context(), id, 0, quiet{}) },
		"kill": func(id string) (View, error) { return w.Kill(t.Context(), id, "") },
	} {
		v := w.create(Create{Name: "devbox", Start: true, Wait: true, Ephemeral: true})
		now, err := end(v.ID)
		if err != nil || now.ID != v.ID || now.State != banger.StateStopped || now.ImageName != testImage.Name || now.Dir != "" {
			t.Errorf("%s: got %+v, %v", name, now, err)
		}
		w.want("")
	}
}

func TestStartOfAVMThatIsBeingStoppedIsAnotherRun(t *testing.T) {
	for name, end := range map[string]func(*fakeShim){
		"it stops":            func(s *fakeShim) { s.ends(shim.ReasonStopped) },
		"its shim is killed":  (*fakeShim).crash,
		"it is not stopped":   func(s *fakeShim) { s.becomes(shim.Running) },
		"nobody waits longer": nil,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			v := w.create(Create{Name: "devbox", Start: true, Wait: true})
			s := w.shims.vms[v.ID]
			s.becomes(shim.Stopping)
			w.eventually("it is being stopped", func() bool {
				status, _, _ := w.liveOf(v.ID).seen()
				return status.State == shim.Stopping
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ending := sync.OnceFunc(func() {
				if end == nil {
					cancel()
				} else {
					end(s)
				}
			})
			now, err := w.Start(ctx, v.ID, false, true, onStage(func(string) { ending() }))
			if end == nil {
				if banger.CodeOf(err) != banger.Cancelled {
					t.Errorf("got %v", err)
				}
				return
			}
			if must(t, now, err).State != banger.StateRunning || (now.Runtime.BootCount == 2) == s.alive() {
				t.Errorf("got %+v", now)
			}
		})
	}
}

func TestStartThatFailsLeavesTheStateAsItWas(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true})
	if _, err := w.Stop(t.Context(), v.ID, 0, quiet{}); err != nil {
		t.Fatal(err)
	}
	w.shims.startErr = banger.Errorf(banger.Unavailable, "no VMM")
	if _, err := w.Start(t.Context(), v.ID, false, false, quiet{}); banger.CodeOf(err) != banger.Unavailable {
		t.Error(err)
	}
	if v := w.get(v.ID); v.State != banger.StateStopped || v.Runtime.BootCount != 1 {
		t.Errorf("got %+v", v)
	}
}

func TestKillEndsAVMInStateStopped(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true})
	if _, err := w.Kill(t.Context(), v.ID, "HUP"); banger.CodeOf(err) != banger.BadRequest {
		t.Error(err)
	}
	v, err := w.Kill(t.Context(), v.ID, "TERM")
	if must(t, v, err).State != banger.StateStopped {
		t.Errorf("got %+v", v)
	}
	if _, err := w.Kill(t.Context(), v.ID, ""); banger.CodeOf(err) != banger.NotRunning {
		t.Error(err)
	}
}

func TestKillEndsAShimThatDoesNotAnswer(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true})
	w.shims.mute = true
	w.restart(w.Dirs)
	w.shimTimeout = 50 * time.Millisecond
	if err := w.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	v, err := w.Kill(t.Context(), v.ID, "KILL")
	if must(t, v, err).State != banger.StateStopped {
		t.Errorf("got %+v", v)
	}
	w.want("dir vms/devbox", "row devbox stopped")
}

func TestPauseAndResume(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true})
	for _, tt := range []struct {
		ask  func(context.Context, string) (View, error)
		want banger.State
	}{{w.Pause, banger.StatePaused}, {w.Pause, banger.StatePaused}, {w.Resume, banger.StateRunning}, {w.Resume, banger.StateRunning}} {
		v, err := tt.ask(t.Context(), v.ID)
		if must(t, v, err).State != tt.want {
			t.Errorf("got %s, want %s", v.State, tt.want)
		}
	}
	if _, err := w.Stop(t.Context(), v.ID, 0, quiet{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Pause(t.Context(), v.ID); banger.CodeOf(err) != banger.NotRunning {
		t.Error(err)
	}
}

func TestDeathIsNoticedAndRecorded(t *testing.T) {
	for name, tt := range map[string]struct {
		die  func(*fakeShim)
		want banger.State
		err  string
	}{
		"poweroff":    {func(s *fakeShim) { s.ends(shim.ReasonPoweroff) }, banger.StateStopped, ""},
		"VMM killed":  {func(s *fakeShim) { s.ends(shim.ReasonCrashed) }, banger.StateError, "because crashed"},
		"shim killed": {(*fakeShim).crash, banger.StateError, errPowerCut},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			v := w.create(Create{Name: "devbox", Start: true, Wait: true})
			tt.die(w.shims.vms[v.ID])
			w.eventually("the row says it", func() bool {
				row, err := w.rows.VM(t.Context(), v.ID)
				return err == nil && row.State == tt.want && strings.HasPrefix(row.Runtime.LastError, tt.err)
			})
			if v := w.get(v.ID); v.State != tt.want || !strings.HasPrefix(v.LastError, tt.err) {
				t.Errorf("got %+v", v)
			}
			v, err := w.Start(t.Context(), v.ID, false, true, quiet{})
			if must(t, v, err).State != banger.StateRunning || v.LastError != "" {
				t.Errorf("got %+v", v)
			}
		})
	}
}

func TestStopOfAVMThatDiesMeanwhileIsRecorded(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true})
	s := w.shims.vms[v.ID]
	v, err := w.Stop(t.Context(), v.ID, 0, onStage(func(string) { s.crash() }))
	if must(t, v, err).State != banger.StateError || v.LastError != errPowerCut {
		t.Errorf("got %+v", v)
	}
}

func TestDeleteOfARunningVMNeedsForce(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true})
	err := w.Delete(t.Context(), v.ID, false)
	if banger.CodeOf(err) != banger.Conflict || len(banger.HintsOf(err)) == 0 {
		t.Error(err)
	}
	w.want("dir vms/devbox", "process devbox", "row devbox running")
	for range 2 { // deleting twice is no error
		if err := w.Delete(t.Context(), v.ID, true); err != nil {
			t.Error(err)
		}
		w.want("")
	}
}

func TestDeleteGoesOnWhenItsRequestEnds(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox"})
	ctx, cancel := context.WithCancel(t.Context())
	w.shims.onKill = cancel
	if err := w.Delete(ctx, v.ID, false); err != nil || ctx.Err() == nil {
		t.Error(err, ctx.Err())
	}
	w.want("")
}

func TestRemovalOfAnEphemeralVMGoesOnWhenItsRequestEnds(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true, Ephemeral: true})
	ctx, cancel := context.WithCancel(t.Context())
	w.shims.onKill = cancel
	if _, err := w.Stop(ctx, v.ID, 0, quiet{}); err != nil || ctx.Err() == nil {
		t.Error(err, ctx.Err())
	}
	w.want("")
}

func TestRemovalOfAnEphemeralVMThatFailsIsBegunAgain(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true, Ephemeral: true})
	w.db.refusals.Store(1)
	if _, err := w.Stop(t.Context(), v.ID, 0, quiet{}); err == nil {
		t.Error("it went well")
	}
	w.eventually("the VM goes", func() bool { return w.String() == "" })
}

func TestDeleteLeavesADirectoryThatIsNotOurs(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox"})
	if err := os.Remove(w.Dirs.VM(v.ID).Record()); err != nil {
		t.Fatal(err)
	}
	if err := w.Delete(t.Context(), v.ID, true); err != nil {
		t.Fatal(err)
	}
	w.want("dir vms/" + v.ID)
}

// addForeign writes a row as another tool left it, with a directory of its
// files where ours would be.
func addForeign(t *testing.T, w *world) banger.VM {
	t.Helper()
	row, err := w.rows.ReserveVM(t.Context(), banger.VM{
		ID: banger.NewID(), Name: "theirs", ImageID: testImage.ID, GuestIP: "172.16.0.2", State: banger.StateStopped,
	}, w.config.NetworkPrefix)
	if err == nil {
		err = os.MkdirAll(string(w.Dirs.VM(row.ID)), 0o700)
	}
	if err == nil {
		err = os.WriteFile(w.Dirs.VM(row.ID).Disk(), []byte("theirs"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return row
}

func TestForeignVMCanOnlyBeShownAndForgotten(t *testing.T) {
	w := newWorld(t)
	row := addForeign(t, w)
	if v := w.get(row.ID); !v.Foreign || v.State != banger.StateStopped || v.Dir != "" {
		t.Errorf("got %+v", v)
	}
	for name, do := range map[string]func() (View, error){
		"start":  func() (View, error) { return w.Start(t.Context(), row.ID, false, false, quiet{}) },
		"stop":   func() (View, error) { return w.Stop(t.Context(), row.ID, 0, quiet{}) },
		"kill":   func() (View, error) { return w.Kill(t.Context(), row.ID, "") },
		"rename": func() (View, error) { return w.Rename(t.Context(), row.ID, "ours") },
		"keep":   func() (View, error) { return w.Keep(t.Context(), row.ID) },
	} {
		if _, err := do(); banger.CodeOf(err) != banger.Conflict || !strings.Contains(err.Error(), "another tool") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	w.reconcile()
	w.want("dir vms/theirs", "row theirs stopped")
	if err := w.Delete(t.Context(), row.ID, false); err != nil {
		t.Fatal(err)
	}
	w.want("dir vms/" + row.ID)
}

func TestRenameChangesRowAndRecord(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true})
	w.create(Create{Name: "other"})
	if _, err := w.Rename(t.Context(), v.ID, "other"); banger.CodeOf(err) != banger.AlreadyExists {
		t.Error(err)
	}
	if _, err := w.Rename(t.Context(), v.ID, "Bad"); banger.CodeOf(err) != banger.BadRequest {
		t.Error(err)
	}
	v, err := w.Rename(t.Context(), v.ID, "tools")
	if must(t, v, err).Name != "tools" || v.State != banger.StateRunning {
		t.Errorf("got %+v", v)
	}
	if h, err := ReadHeld(w.Dirs.VM(v.ID)); err != nil || h.Name != "tools" {
		t.Errorf("got %+v, %v", h, err)
	}
}

func TestKeepReachesAShimThatWasNotHeardOfYet(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true, Ephemeral: true})
	w.drop(v.ID)
	if v, err := w.Keep(t.Context(), v.ID); must(t, v, err).Spec.Ephemeral || w.shims.vms[v.ID].status.Ephemeral {
		t.Errorf("got %+v", v)
	}
}

func TestKeptVMOutlivesItsOwner(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true, Ephemeral: true})
	if v, err := w.Keep(t.Context(), v.ID); must(t, v, err).Spec.Ephemeral || w.shims.vms[v.ID].status.Ephemeral {
		t.Errorf("got %+v", v)
	}
	w.removeUnowned(t.Context(), w.liveOf(v.ID))
	w.shims.vms[v.ID].ends(shim.ReasonStopped)
	w.eventually("it is stopped", func() bool { return w.get(v.ID).State == banger.StateStopped })
	w.eventually("the row says so", func() bool { return w.String() == "dir vms/devbox\nrow devbox stopped" })
}

func TestUnknownVMIsNotFound(t *testing.T) {
	w := newWorld(t)
	if _, err := w.Start(t.Context(), banger.NewID(), false, false, quiet{}); banger.CodeOf(err) != banger.NotFound {
		t.Error(err)
	}
	if _, _, err := w.Health(t.Context(), banger.NewID()); banger.CodeOf(err) != banger.NotFound {
		t.Error(err)
	}
}

func TestMutationsOfOneVMWaitForEachOther(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox"})
	unlock, err := w.locks.lock(t.Context(), v.ID)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() {
		_, err := w.Start(ctx, v.ID, false, false, quiet{})
		result <- err
	}()
	cancel()
	if err := <-result; banger.CodeOf(err) != banger.Cancelled {
		t.Error(err)
	}
	unlock()
	w.want("dir vms/devbox", "row devbox created")
}

func TestHealthAndStats(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true})
	if up, problems, err := w.Health(t.Context(), v.ID); up != 7 || len(problems) != 1 || err != nil {
		t.Error(up, problems, err)
	}
	s, err := w.Stats(t.Context(), v.ID)
	if err != nil || s.GuestProcs != 9 || s.ResidentBytes <= 0 || s.DiskUsedBytes <= 0 {
		t.Errorf("got %+v, %v", s, err)
	}
	if got := w.get(v.ID).Stats; got.GuestProcs != 9 || !got.SampledAt.Equal(s.SampledAt) {
		t.Errorf("got %+v", got)
	}
	if _, err := w.Stop(t.Context(), v.ID, 0, quiet{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Health(t.Context(), v.ID); banger.CodeOf(err) != banger.NotRunning {
		t.Error(err)
	}
	if s, err := w.Stats(t.Context(), v.ID); err != nil || s.ResidentBytes != 0 || s.DiskUsedBytes <= 0 {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestHealthOfAGuestThatIsNotUpSaysWhy(t *testing.T) {
	w := newWorld(t)
	w.shims.guest = func(s *fakeShim) { s.update(func() { s.status.Problem = "no answer" }) }
	v := w.create(Create{Name: "devbox", Start: true})
	_, problems, err := w.Health(t.Context(), v.ID)
	if err != nil || strings.Join(problems, "") != "the guest is booting: no answer" {
		t.Error(problems, err)
	}
}

func TestTouchesReachTheLedger(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true})
	used := time.Now().Add(time.Hour).UTC()
	w.shims.vms[v.ID].update(func() { w.shims.vms[v.ID].status.LastTouched = used })
	w.tend(t.Context())
	row, err := w.rows.VM(t.Context(), v.ID)
	if err != nil || !row.LastTouchedAt.Equal(used) {
		t.Error(row.LastTouchedAt, used, err)
	}
}

func TestRunReturnsWhenAllHasEnded(t *testing.T) {
	w := newWorld(t)
	w.create(Create{Name: "devbox", Start: true, Wait: true, Ephemeral: true})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Run(ctx); err != nil {
		t.Error(err)
	}
	w.want("dir vms/devbox", "process devbox", "row devbox running")
}

func TestLedgerThatFailsAtTheEndIsNotLost(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true})
	w.db.fail(errors.New("disk full"))
	if _, err := w.Stop(t.Context(), v.ID, 0, quiet{}); err == nil {
		t.Error("it went well")
	}
	if v := w.get(v.ID); v.State != banger.StateStopped {
		t.Errorf("shown as %s", v.State)
	}
	w.db.fail(nil)
	v, err := w.Stop(t.Context(), v.ID, 0, quiet{})
	if must(t, v, err).State != banger.StateStopped {
		t.Errorf("got %+v", v)
	}
	w.want("dir vms/devbox", "row devbox stopped")
}

// endsOnceRead has a VM end when whoever changes it has read its row and has yet to
// look at the VM.
func (w *world) endsOnceRead(id string) {
	w.db.read = sync.OnceFunc(func() {
		w.shims.vms[id].ends(shim.ReasonPoweroff)
		w.eventually("its end is known", w.liveOf(id).ended)
	})
}

func TestChangeOfAVMThatEndsMeanwhileLeavesItEnded(t *testing.T) {
	for name, change := range map[string]func(w *world, id string) error{
		"set": func(w *world, id string) error {
			_, _, err := w.Set(t.Context(), id, Set{DiskBytes: 2 * banger.GiB}, quiet{})
			return err
		},
		"snapshot": func(w *world, id string) error {
			_, err := w.CreateSnapshot(t.Context(), id, "one", quiet{})
			return err
		},
		"visit that fails": func(w *world, id string) error {
			w.shims.startErr = banger.Errorf(banger.Unavailable, "no VMM")
			if err := w.Visit(t.Context(), id, quiet{}, nil); banger.CodeOf(err) != banger.Unavailable {
				return errors.New("it did not fail")
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			v := w.create(Create{Name: "devbox", Start: true, Wait: true})
			w.endsOnceRead(v.ID)
			if err := change(w, v.ID); err != nil {
				t.Fatal(err)
			}
			if row := w.row(v.ID); row.State != banger.StateStopped || row.Runtime.EndedAt.IsZero() {
				t.Errorf("its row is %s and says that it ended %v", row.State, row.Runtime.EndedAt)
			}
		})
	}
}

func TestChangeOfAnEphemeralVMThatEndsMeanwhileBringsNoRowBack(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true, Ephemeral: true})
	w.endsOnceRead(v.ID)
	if _, _, err := w.Set(t.Context(), v.ID, Set{MemoryMiB: 300}, quiet{}); banger.CodeOf(err) != banger.NotFound {
		t.Error(err)
	}
	w.want("")
}
