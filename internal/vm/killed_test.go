package vm

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"banger"
)

// amid does something to the VM box while work on it is in the middle of a
// save, and gives the error of both.
func (w *world) amid(work, something func() error) (ofWork, ofSomething error) {
	w.t.Helper()
	began := make(chan struct{})
	w.shims.saving = func(ctx context.Context, s *fakeShim) {
		close(began)
		select {
		case <-ctx.Done():
		case <-s.ended():
		case <-time.After(time.Minute):
			w.t.Error("the save was not broken off")
		}
	}
	result := make(chan error, 1)
	go func() { result <- work() }()
	<-began
	ofSomething = something()
	return <-result, ofSomething
}

func TestKillDoesNotWaitForWorkOnTheVM(t *testing.T) {
	works := map[string]func(*world, string) error{
		"fork": func(w *world, id string) error {
			_, err := w.Fork(w.t.Context(), id, Fork{Count: 2}, quiet{})
			return err
		},
		"snapshot": func(w *world, id string) error {
			_, err := w.CreateSnapshot(w.t.Context(), id, "one", quiet{})
			return err
		},
		"suspend": func(w *world, id string) error {
			_, err := w.Suspend(w.t.Context(), id, quiet{})
			return err
		},
	}
	for name, work := range works {
		t.Run("kill amid "+name, func(t *testing.T) {
			w, v := parent(t, true)
			broken, err := w.amid(func() error { return work(w, v.ID) }, func() error {
				v, err := w.Kill(t.Context(), v.ID, "KILL")
				if v.State != banger.StateStopped {
					t.Errorf("it is %s", v.State)
				}
				return err
			})
			if err != nil || broken == nil || !strings.Contains(broken.Error(), errEnded.Error()) {
				t.Errorf("killed: %v; the other: %v", err, broken)
			}
			w.want("dir vms/box", "row box stopped")
			if left := w.left(v.ID); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
		t.Run("delete amid "+name, func(t *testing.T) {
			w, v := parent(t, true)
			broken, err := w.amid(func() error { return work(w, v.ID) }, func() error {
				return w.Delete(t.Context(), v.ID, true)
			})
			if err != nil || banger.CodeOf(broken) != banger.Cancelled {
				t.Errorf("deleted: %v; the other: %v", err, broken)
			}
			w.want()
		})
	}
}

// A shim may be stopped, in a debugger for example.
func TestDeleteAmidWorkDoesNotWaitForAShimThatDoesNotAnswer(t *testing.T) {
	w, v := parent(t, true)
	w.shims.stopped, w.shimTimeout = true, 10*time.Millisecond
	broken, err := w.amid(func() error {
		_, err := w.Fork(t.Context(), v.ID, Fork{}, quiet{})
		return err
	}, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		return w.Delete(ctx, v.ID, true)
	})
	if err != nil || !errors.Is(broken, errEnded) {
		t.Errorf("deleted: %v; the fork: %v", err, broken)
	}
	w.want()
}

// A guest that does not come up must not keep anybody from ending it.
func TestKillDoesNotWaitForAGuestToComeUp(t *testing.T) {
	w, v := parent(t, false)
	w.shims.guest = func(*fakeShim) {}
	waiting := make(chan struct{})
	result := make(chan error, 1)
	go func() {
		_, err := w.Start(t.Context(), v.ID, false, true, onStage(func(stage string) {
			if stage == "wait for guest" {
				close(waiting)
			}
		}))
		result <- err
	}()
	<-waiting
	if v, err := w.Kill(t.Context(), v.ID, "TERM"); err != nil || v.State != banger.StateStopped {
		t.Errorf("got %s, %v", v.State, err)
	}
	if err := <-result; !errors.Is(err, errEnded) {
		t.Errorf("the start: %v", err)
	}
	w.want("dir vms/box", "row box stopped")
}

// Work that waited behind the work that was broken off does not keep the end
// waiting, if it comes first.
func TestWorkThatBeginsBeforeAnEndIsBrokenOffToo(t *testing.T) {
	for range 100 {
		var l locks
		_, unlock, err := l.lockWork(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			ctx, unlock, err := l.lockWork(t.Context(), "a")
			if err == nil {
				<-ctx.Done()
				unlock()
			}
		}()
		for waits := 0; waits < 2; runtime.Gosched() {
			l.mu.Lock()
			waits = l.held["a"].users
			l.mu.Unlock()
		}
		bound, cancel := context.WithTimeout(t.Context(), time.Minute)
		unlock, err = l.lockEnd(bound, "a", unlock)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		unlock()
	}
}

func TestAnEndDoesNotBreakAnEndOff(t *testing.T) {
	w, v := parent(t, true)
	killing, goOn := make(chan struct{}), make(chan struct{})
	w.shims.killed = func() { close(killing); <-goOn; w.shims.killed = nil }
	result := make(chan error, 1)
	go func() {
		_, err := w.Kill(t.Context(), v.ID, "KILL")
		result <- err
	}()
	<-killing
	second := make(chan error, 1)
	go func() { second <- w.Delete(t.Context(), v.ID, true) }()
	close(goOn)
	if err := errors.Join(<-result, <-second); err != nil && banger.CodeOf(err) != banger.NotFound {
		t.Error(err)
	}
	w.want()
}

// The command of an ephemeral VM sees its guest go and removes it, while whoever stops
// it still waits.
func TestStopOfAnEphemeralVMGoesWellThoughItsCommandRemovesIt(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true, Ephemeral: true})
	w.shims.stopErr = errors.New("nobody waits for this any more")
	removed := make(chan error, 1)
	_, err := w.Stop(t.Context(), v.ID, 0, onStage(func(stage string) {
		if stage != "stop guest" {
			return
		}
		go func() { removed <- w.Delete(t.Context(), v.ID, true) }()
		for comes := false; !comes; runtime.Gosched() {
			w.locks.mu.Lock()
			comes = w.locks.held[v.ID].enders > 0
			w.locks.mu.Unlock()
		}
	}))
	if err := errors.Join(err, <-removed); err != nil {
		t.Error(err)
	}
	w.want()
}
