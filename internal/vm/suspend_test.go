package vm

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/shim"
)

// suspended is a world with one suspended VM called box.
func suspended(t *testing.T) (*world, string) {
	t.Helper()
	w := newWorld(t)
	v := w.create(Create{Name: "box", Start: true, Wait: true})
	if v, err := w.Suspend(t.Context(), v.ID, quiet{}); err != nil || v.State != banger.StateSuspended {
		t.Fatal(v.State, err)
	}
	w.want("dir vms/box", "row box suspended")
	return w, v.ID
}

func TestStartResumesASuspendedVM(t *testing.T) {
	w, id := suspended(t)
	if _, err := w.Suspend(t.Context(), id, quiet{}); err != nil {
		t.Error("suspended again:", err)
	}
	v, err := w.Start(t.Context(), id, false, true, quiet{})
	if err != nil || v.State != banger.StateRunning {
		t.Fatal(v.State, err)
	}
	if r := w.shims.vms[id].launch.Restore; r == nil || !r.Suspended {
		t.Errorf("launched with %+v", r)
	}
	w.want("dir vms/box", "process box", "row box running")
}

// A suspension that was cut off may come to its end all the same.
func TestStartResumesAVMThatIsSuspendedMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.shims.guest = func(s *fakeShim) {
		if s.launch.Restore != nil {
			s.becomes(shim.Running)
		}
	}
	v := w.create(Create{Name: "box", Start: true})
	meanwhile := onStage(func(stage string) {
		if s := w.shims.vms[v.ID]; stage == "wait for guest" && s.launch.Restore == nil {
			if _, err := s.Suspend(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	v, err := w.Start(t.Context(), v.ID, false, true, meanwhile)
	if err != nil || v.State != banger.StateRunning {
		t.Fatal(v.State, err)
	}
	if r := w.shims.vms[v.ID].launch.Restore; r == nil || !r.Suspended {
		t.Errorf("launched with %+v", r)
	}
}

func TestSuspendedVMRunsAgainOnTheMachineItRanOn(t *testing.T) {
	w, id := suspended(t)
	row, err := w.rows.VM(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	row.Spec.MemoryMiB = 2048
	if err := w.rows.UpsertVM(t.Context(), row); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Start(t.Context(), id, false, true, quiet{}); err != nil {
		t.Fatal(err)
	}
	if got := w.shims.vms[id].launch.Machine.MemoryMiB; got != 256 {
		t.Errorf("it has %d MiB", got)
	}
}

func TestStopOfASuspendedVMLetsItsGuestWriteFirst(t *testing.T) {
	w, id := suspended(t)
	v, err := w.Stop(t.Context(), id, time.Second, quiet{})
	if err != nil || v.State != banger.StateStopped {
		t.Fatal(v.State, err)
	}
	if s := w.shims.vms[id]; s.launch.Restore == nil || s.status.Exit.Reason != shim.ReasonStopped {
		t.Errorf("launched with %+v, ended with %+v", s.launch.Restore, s.status.Exit)
	}
}

func TestKillOfASuspendedVMDropsItsMemory(t *testing.T) {
	w, id := suspended(t)
	v, err := w.Kill(t.Context(), id, "KILL")
	if err != nil || v.State != banger.StateStopped || exists(w.Dirs.VM(id).Suspended()) {
		t.Fatal(v.State, err)
	}
	if _, err := w.Start(t.Context(), id, false, true, quiet{}); err != nil || w.shims.vms[id].launch.Restore != nil {
		t.Errorf("launched with %+v, %v", w.shims.vms[id].launch.Restore, err)
	}
}

func TestRestartOfASuspendedVMBootsIt(t *testing.T) {
	w, id := suspended(t)
	v, err := w.Restart(t.Context(), id, time.Second, quiet{})
	if err != nil || v.State != banger.StateRunning || w.shims.vms[id].launch.Restore != nil || exists(w.Dirs.VM(id).Suspended()) {
		t.Errorf("%s %+v %v", v.State, w.shims.vms[id].launch.Restore, err)
	}
}

func TestColdStartOfASuspendedVMDropsItsMemory(t *testing.T) {
	w, id := suspended(t)
	said := warned{}
	if _, err := w.Start(t.Context(), id, true, true, &said); err != nil || w.shims.vms[id].launch.Restore != nil || exists(w.Dirs.VM(id).Suspended()) {
		t.Errorf("%+v %v", w.shims.vms[id].launch.Restore, err)
	}
	if !strings.Contains(said.String(), "memory is dropped") {
		t.Errorf("it said %q", said.String())
	}
}

// warned keeps warnings.
type warned struct{ strings.Builder }

func (*warned) Stage(string)          {}
func (w *warned) Warn(message string) { w.WriteString(message + "\n") }

func TestWhatASuspendedVMDoesNotTake(t *testing.T) {
	w, id := suspended(t)
	for name, do := range map[string]func(context.Context, string) (View, error){"pause": w.Pause, "resume": w.Resume} {
		_, err := do(t.Context(), id)
		if banger.CodeOf(err) != banger.NotRunning || !strings.Contains(err.Error(), "suspended") || len(banger.HintsOf(err)) == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.Rename(t.Context(), id, "other"); err != nil {
		t.Error(err)
	}
	w.want("dir vms/other", "row other suspended")
	if err := w.Delete(t.Context(), id, false); err != nil {
		t.Error(err)
	}
	w.want()
}

func TestSuspendRefusesWhatWouldBeLostByIt(t *testing.T) {
	w := newWorld(t)
	stopped := w.create(Create{Name: "stopped"})
	fleeting := w.create(Create{Name: "fleeting", Start: true, Ephemeral: true})
	for id, code := range map[string]banger.Code{stopped.ID: banger.NotRunning, fleeting.ID: banger.Conflict} {
		if _, err := w.Suspend(t.Context(), id, quiet{}); banger.CodeOf(err) != code {
			t.Errorf("got %v, want %s", err, code)
		}
	}
	w.want("dir vms/fleeting", "dir vms/stopped", "process fleeting", "row fleeting running", "row stopped created")
}

func TestVMWhoseSuspendFailedStillRuns(t *testing.T) {
	w := newWorld(t)
	w.shimTimeout = time.Millisecond
	v := w.create(Create{Name: "box", Start: true, Wait: true})
	w.shims.saveErr = banger.Errorf(banger.NoSpace, "the disk is full")
	if _, err := w.Suspend(t.Context(), v.ID, quiet{}); banger.CodeOf(err) != banger.NoSpace {
		t.Errorf("got %v", err)
	}
	w.want("dir vms/box", "process box", "row box running")
}

func TestSuspendedVMThatCannotStartStaysSuspended(t *testing.T) {
	w, id := suspended(t)
	w.shims.startErr = banger.Errorf(banger.Unavailable, "no VMM")
	if _, err := w.Start(t.Context(), id, false, true, quiet{}); err == nil {
		t.Error("it started")
	}
	w.want("dir vms/box", "row box suspended")
}

func TestBootInsteadOfAResumeIsTold(t *testing.T) {
	w, id := suspended(t)
	w.shims.guest = func(s *fakeShim) {
		s.update(func() { s.status.State, s.status.NotRestored = shim.Running, "it is another QEMU" })
	}
	said := warned{}
	v, err := w.Start(t.Context(), id, false, true, &said)
	if err != nil || !strings.Contains(said.String(), "another QEMU") || v.NotRestored == "" {
		t.Errorf("%+v said %q, %v", v, said.String(), err)
	}
}

func TestShimKilledAsSoonAsItHadSuspendedLeavesASuspendedVM(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "box", Start: true, Wait: true})
	s := w.shims.vms[v.ID]
	if err := s.commitSuspend(); err != nil {
		t.Fatal(err)
	}
	s.crash()
	w.eventually("the row follows", func() bool { return w.String() == "dir vms/box\nrow box suspended" })
	if err := os.Remove(w.Dirs.VM(v.ID).Suspended() + "/record.json"); err != nil {
		t.Fatal(err)
	}
	if v := w.get(v.ID); v.State != banger.StateSuspended { // the shim says at the start what is wrong
		t.Errorf("it is %s", v.State)
	}
}

func TestWhatWasNotFinishedGoesUnlessAShimMayHaveIt(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "box", Start: true, Wait: true})
	leave := func(names ...string) {
		t.Helper()
		for _, name := range names {
			if err := os.MkdirAll(filepath.Join(w.Dirs.VM(v.ID).Scratch(name), "inside"), 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	leave("suspended", "resumed", "disk.1.qcow2", "fork-1", "restore-1", "restored", "dropped")
	w.reconcile()
	left := w.left(v.ID)
	for i := range left {
		left[i] = filepath.Base(left[i])
	}
	if !slices.Equal(left, []string{".tmp-disk.1.qcow2", ".tmp-resumed", ".tmp-suspended"}) {
		t.Errorf("of a VM that runs there is left: %q", left)
	}
	w.shims.vms[v.ID].crash()
	w.eventually("nothing is left", func() bool { return len(w.left(v.ID)) == 0 })
	leave("suspended", "resumed", "disk.ext4")
	w.reconcile()
	if left := w.left(v.ID); len(left) > 0 {
		t.Errorf("of a VM that does not run there is left: %q", left)
	}
}
