package vm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/layers"
	"banger/internal/paths"
	"banger/internal/shim"
)

func (w *world) snapshot(id, name string) banger.Snapshot {
	w.t.Helper()
	s, err := w.CreateSnapshot(w.t.Context(), id, name, quiet{})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) restore(id, name string, force bool) View {
	w.t.Helper()
	v, err := w.RestoreSnapshot(w.t.Context(), id, name, force, quiet{})
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

func TestSnapshotsOfARunningVMHaveItsMemory(t *testing.T) {
	w, v := parent(t, true)
	one, two := w.snapshot(v.ID, "one"), w.snapshot(v.ID, "")
	if !one.Memory || one.Name != "one" || one.Parent != "" || two.Parent != one.ID || two.Name == "" || one.SizeBytes == 0 {
		t.Errorf("%+v then %+v", one, two)
	}
	all, err := w.Snapshots(t.Context(), v.ID)
	if err != nil || len(all) != 2 || all[0].ID != one.ID || all[1] != two {
		t.Errorf("listed: %+v %v", all, err)
	}
	if left := w.left(v.ID); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	w.want("dir vms/box", "process box", "row box running")
}

func TestRestoreOfARunningVMIsForcedAndGoesOnWhereItWas(t *testing.T) {
	w, v := parent(t, true)
	s := w.snapshot(v.ID, "one")
	w.writeDisk(v.ID, "later")
	_, err := w.RestoreSnapshot(t.Context(), v.ID, "one", false, quiet{})
	if banger.CodeOf(err) != banger.Conflict || w.readDisk(v.ID) != "later" || len(w.shims.running()) != 1 {
		t.Fatalf("not forced: %v", err)
	}
	if v = w.restore(v.ID, "one", true); v.State != banger.StateRunning || v.Spec.Snapshot != s.ID || w.readDisk(v.ID) != "of the parent" {
		t.Errorf("%+v with the disk %q", v.VM, w.readDisk(v.ID))
	}
	if shim := w.shims.vms[v.ID]; shim.memory != "box" || !shim.launch.Restore.Strict || string(shim.launch.Restore.Token) != "token" {
		t.Errorf("launched with %+v", shim.launch.Restore)
	}
	w.writeDisk(v.ID, "later again")
	if v = w.restore(v.ID, s.ID[:6], true); w.readDisk(v.ID) != "of the parent" {
		t.Errorf("the second time: %q", w.readDisk(v.ID))
	}
	if next := w.snapshot(v.ID, "two"); next.Parent != s.ID {
		t.Errorf("the next has the parent %q", next.Parent)
	}
}

func TestRestoreOfADiskAloneLeavesTheVMStopped(t *testing.T) {
	w, v := parent(t, false)
	if s := w.snapshot(v.ID, "new"); s.Memory {
		t.Errorf("%+v", s)
	}
	if got := w.restore(v.ID, "new", false); got.State != banger.StateCreated {
		t.Errorf("one that never ran is %s", got.State)
	}
	if _, err := w.Start(t.Context(), v.ID, false, true, quiet{}); err != nil {
		t.Fatal(err)
	}
	w.writeDisk(v.ID, "later")
	if v = w.restore(v.ID, "new", true); v.State != banger.StateStopped || w.readDisk(v.ID) != "of the parent" {
		t.Errorf("%s with the disk %q", v.State, w.readDisk(v.ID))
	}
	w.want("dir vms/box", "row box stopped")
}

func TestSnapshotOfASuspendedVMIsRestoredRunning(t *testing.T) {
	w, v := parent(t, true)
	if _, err := w.Suspend(t.Context(), v.ID, quiet{}); err != nil {
		t.Fatal(err)
	}
	if s := w.snapshot(v.ID, "one"); !s.Memory {
		t.Errorf("%+v", s)
	}
	w.want("dir vms/box", "row box suspended")
	w.writeDisk(v.ID, "later")
	v = w.restore(v.ID, "one", false)
	if v.State != banger.StateRunning || w.readDisk(v.ID) != "of the parent" || exists(w.Dirs.VM(v.ID).Suspended()) {
		t.Errorf("%s with the disk %q", v.State, w.readDisk(v.ID))
	}
}

func TestRestoreGivesBackTheShapeOfTheSnapshot(t *testing.T) {
	w, v := parent(t, true)
	w.snapshot(v.ID, "small")
	row, err := w.rows.VM(t.Context(), v.ID)
	if err != nil {
		t.Fatal(err)
	}
	row.Spec.DiskBytes, row.Spec.MemoryMiB = 4*banger.GiB, 1024
	if err := w.rows.UpsertVM(t.Context(), row); err != nil {
		t.Fatal(err)
	}
	v = w.restore(v.ID, "small", true)
	launch := w.shims.vms[v.ID].launch
	if v.Spec.DiskBytes != banger.GiB || v.Spec.MemoryMiB != 256 || launch.Machine.MemoryMiB != 256 || launch.Setup.DiskBytes != banger.GiB {
		t.Errorf("%+v, launched with %+v", v.Spec, launch.Machine)
	}
}

func TestDamagedSnapshotChangesNothing(t *testing.T) {
	for _, file := range []string{"memory", "state", "shorter"} {
		t.Run(file, func(t *testing.T) {
			w, v := parent(t, true)
			s := w.snapshot(v.ID, "one")
			w.writeDisk(v.ID, "later")
			dir := w.Dirs.VM(v.ID).Snapshot(s.ID)
			if file == "shorter" {
				if err := os.Truncate(filepath.Join(dir, "memory"), 4096); err != nil {
					t.Fatal(err)
				}
			} else {
				damage(t, filepath.Join(dir, file))
			}
			_, err := w.RestoreSnapshot(t.Context(), v.ID, "one", true, quiet{})
			if err == nil || !strings.Contains(err.Error(), "damaged") || w.readDisk(v.ID) != "later" {
				t.Errorf("got %v, the disk has %q", err, w.readDisk(v.ID))
			}
			w.want("dir vms/box", "process box", "row box running")
		})
	}
}

func TestRestoreThatIsCancelledAmidTheCopyLeavesNothing(t *testing.T) {
	w, v := parent(t, true)
	w.snapshot(v.ID, "one")
	w.writeDisk(v.ID, "later")
	ctx, cancel := context.WithCancel(t.Context())
	_, err := w.RestoreSnapshot(ctx, v.ID, "one", true, onStage(func(name string) {
		if name == "copy disk" {
			cancel()
		}
	}))
	if banger.CodeOf(err) != banger.Cancelled || w.readDisk(v.ID) != "later" {
		t.Errorf("got %v, the disk has %q", err, w.readDisk(v.ID))
	}
	if left := w.left(v.ID); len(left) != 0 {
		t.Errorf("left %q", left)
	}
}

func TestRestoreThatDoesNotStartSaysWhatItLeft(t *testing.T) {
	w, v := parent(t, true)
	w.snapshot(v.ID, "one")
	w.shims.refuse = func(shim.Launch) error { return banger.Errorf(banger.BadRequest, "it is another QEMU") }
	_, err := w.RestoreSnapshot(t.Context(), v.ID, "one", true, quiet{})
	if err == nil || !strings.Contains(err.Error(), "its disk is the snapshot's") {
		t.Errorf("got %v", err)
	}
	w.want("dir vms/box", "row box stopped")
}

// replaced are a world and a VM whose disk was about to be replaced: what
// waits has "of the parent" below an empty layer, the VM's has "later" below
// two.
func replaced(t *testing.T) (*world, string, paths.VM) {
	t.Helper()
	w, v := parent(t, true)
	s := w.snapshot(v.ID, "one")
	if _, err := w.Stop(t.Context(), v.ID, time.Second, quiet{}); err != nil {
		t.Fatal(err)
	}
	w.writeDisk(v.ID, "later")
	unlock, err := w.locks.lock(t.Context(), v.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	rec, err := readSnapshot(w.Dirs.VM(v.ID).Snapshot(s.ID))
	if err != nil {
		t.Fatal(err)
	}
	scratch, err := w.copySnapshot(t.Context(), v.ID, rec)
	if err != nil {
		t.Fatal(err)
	}
	dir := w.Dirs.VM(v.ID)
	for _, d := range []string{scratch, string(dir), string(dir)} {
		if _, err := layers.New(d); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(scratch, dir.Restoring()); err != nil {
		t.Fatal(err)
	}
	w.Manager.close()
	return w, v.ID, dir
}

func TestRestoreCutOffAnywhereIsFinished(t *testing.T) {
	in := func(dir paths.VM, name string) string { return filepath.Join(string(dir), name) }
	for name, cut := range map[string]func(paths.VM) error{
		"at its begin": func(paths.VM) error { return nil },
		"of a suspended VM": func(d paths.VM) error {
			return errors.Join(os.Mkdir(d.Suspended(), 0o700), os.WriteFile(in(d, "suspended/memory"), nil, 0o600))
		},
		"after one layer": func(d paths.VM) error { return os.Remove(in(d, "disk.2.qcow2")) },
		"after all layers": func(d paths.VM) error {
			return errors.Join(os.Remove(in(d, "disk.2.qcow2")), os.Remove(in(d, "disk.1.qcow2")))
		},
		"without a base": func(d paths.VM) error { return os.Remove(d.Disk()) },
		"with the new base": func(d paths.VM) error {
			return errors.Join(os.Remove(d.Disk()), os.Link(filepath.Join(d.Restoring(), "disk.ext4"), d.Disk()))
		},
		"with all in place":    moveDisk,
		"before the last name": func(d paths.VM) error { return moveDisk(d) },
	} {
		t.Run(name, func(t *testing.T) {
			w, id, dir := replaced(t)
			if err := cut(dir); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				w.reconcile()
				_, above, err := layers.Of(string(dir))
				if err != nil || len(above) != 1 || w.readDisk(id) != "of the parent" {
					t.Errorf("layers %q over %q, %v", above, w.readDisk(id), err)
				}
			}
			w.want("dir vms/box", "row box stopped")
			if left := w.left(id); len(left) > 0 || exists(dir.Restoring()) {
				t.Errorf("left: %q", left)
			}
			if v := w.get(id); v.Spec.Snapshot == "" {
				t.Error("it is not known where the VM is")
			}
		})
	}
}

func TestRestoreThatHasEndedItsVMIsNotCancelled(t *testing.T) {
	w, v := parent(t, true)
	w.snapshot(v.ID, "one")
	w.writeDisk(v.ID, "later")
	ctx, cancel := context.WithCancel(t.Context())
	w.shims.killed = cancel
	if _, err := w.RestoreSnapshot(ctx, v.ID, "one", true, quiet{}); banger.CodeOf(err) != banger.Cancelled {
		t.Errorf("got %v", err)
	}
	w.want("dir vms/box", "row box stopped")
	if left := w.left(v.ID); w.readDisk(v.ID) != "of the parent" || len(left) > 0 || exists(w.Dirs.VM(v.ID).Restoring()) {
		t.Errorf("the disk has %q; left: %q", w.readDisk(v.ID), left)
	}
}

func TestRestoreCutOffBeforeItWasDecidedIsUndone(t *testing.T) {
	w, id, dir := replaced(t)
	if err := os.Rename(dir.Restoring(), dir.Scratch("restore-1")); err != nil {
		t.Fatal(err)
	}
	w.reconcile()
	if left := w.left(id); w.readDisk(id) != "later" || len(left) > 0 {
		t.Errorf("the disk has %q; left: %q", w.readDisk(id), left)
	}
}

func TestSnapshotThatFailsLeavesNothing(t *testing.T) {
	w, v := parent(t, true)
	w.shims.saveErr = banger.Errorf(banger.NoSpace, "the disk is full")
	if _, err := w.CreateSnapshot(t.Context(), v.ID, "one", quiet{}); banger.CodeOf(err) != banger.NoSpace {
		t.Errorf("got %v", err)
	}
	if all, err := w.Snapshots(t.Context(), v.ID); err != nil || len(all) != 0 || len(w.left(v.ID)) != 0 {
		t.Errorf("%+v %v, left %q", all, err, w.left(v.ID))
	}
}

func TestCancelledSnapshotLeavesNothing(t *testing.T) {
	w, v := parent(t, true)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := w.CreateSnapshot(ctx, v.ID, "one", onStage(func(name string) {
		if name == "write to disk" {
			cancel()
		}
	}))
	if banger.CodeOf(err) != banger.Cancelled {
		t.Errorf("got %v", err)
	}
	if all, err := w.Snapshots(t.Context(), v.ID); err != nil || len(all) != 0 || len(w.left(v.ID)) != 0 {
		t.Errorf("%+v %v, left %q", all, err, w.left(v.ID))
	}
}

func TestSnapshotCutOffIsNoSnapshot(t *testing.T) {
	w, v := parent(t, true)
	s := w.snapshot(v.ID, "one")
	w.Manager.close()
	if err := os.Rename(w.Dirs.VM(v.ID).Snapshot(s.ID), unfinishedSnapshot(w.Dirs.VM(v.ID), s.ID)); err != nil {
		t.Fatal(err)
	}
	w.reconcile()
	if all, err := w.Snapshots(t.Context(), v.ID); err != nil || len(all) != 0 || len(w.left(v.ID)) != 0 {
		t.Errorf("%+v %v, left %q", all, err, w.left(v.ID))
	}
}

func TestDeletedSnapshotLeavesItsChildrenToItsParent(t *testing.T) {
	w, v := parent(t, true)
	one, two, three := w.snapshot(v.ID, "one"), w.snapshot(v.ID, "two"), w.snapshot(v.ID, "three")
	for _, name := range []string{"two", "three"} {
		if err := w.DeleteSnapshot(t.Context(), v.ID, name); err != nil {
			t.Fatal(err)
		}
		if name == "two" {
			if all, err := w.Snapshots(t.Context(), v.ID); err != nil || len(all) != 2 || all[1].ID != three.ID || all[1].Parent != one.ID {
				t.Errorf("without %s: %+v %v", two.Name, all, err)
			}
		}
	}
	if got := w.get(v.ID).Spec.Snapshot; got != one.ID {
		t.Errorf("the VM is at %q", got)
	}
	if err := w.DeleteSnapshot(t.Context(), v.ID, "two"); banger.CodeOf(err) != banger.NotFound || len(banger.HintsOf(err)) == 0 {
		t.Errorf("deleted again: %v", err)
	}
}

func TestSnapshotsRefuseWhatCannotBe(t *testing.T) {
	w, v := parent(t, true)
	w.snapshot(v.ID, "one")
	fleeting := w.create(Create{Name: "fleeting", Start: true, Ephemeral: true})
	for _, c := range []struct {
		id, name string
		code     banger.Code
	}{{v.ID, "one", banger.AlreadyExists}, {v.ID, "a/b", banger.BadRequest}, {fleeting.ID, "x", banger.Conflict}, {banger.NewID(), "x", banger.NotFound}} {
		if _, err := w.CreateSnapshot(t.Context(), c.id, c.name, quiet{}); banger.CodeOf(err) != c.code {
			t.Errorf("%q: got %v, want %s", c.name, err, c.code)
		}
	}
	if _, err := w.RestoreSnapshot(t.Context(), v.ID, "none", true, quiet{}); banger.CodeOf(err) != banger.NotFound {
		t.Errorf("got %v", err)
	}
}

func TestSnapshotsGoWithTheirVM(t *testing.T) {
	w, v := parent(t, true)
	w.snapshot(v.ID, "one")
	if err := w.Delete(t.Context(), v.ID, true); err != nil {
		t.Fatal(err)
	}
	w.want()
}

func TestDiskUseCountsAFileOnce(t *testing.T) {
	w, v := parent(t, false)
	before, err := w.Stats(t.Context(), v.ID)
	if err != nil || before.DiskUsedBytes == 0 {
		t.Fatal(before, err)
	}
	dir := w.Dirs.VM(v.ID)
	if err := errors.Join(os.MkdirAll(dir.Snapshot("x"), 0o700), os.Link(dir.Disk(), filepath.Join(dir.Snapshot("x"), "disk.ext4"))); err != nil {
		t.Fatal(err)
	}
	shared, err := w.Stats(t.Context(), v.ID)
	if err != nil || shared.DiskUsedBytes-before.DiskUsedBytes > 64<<10 {
		t.Errorf("%d, then %d with a second name, %v", before.DiskUsedBytes, shared.DiskUsedBytes, err)
	}
	if err := os.WriteFile(filepath.Join(dir.Snapshot("x"), "memory"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if more, err := w.Stats(t.Context(), v.ID); err != nil || more.DiskUsedBytes < shared.DiskUsedBytes+1<<20 {
		t.Errorf("%d, then %d with a memory, %v", shared.DiskUsedBytes, more.DiskUsedBytes, err)
	}
}

func TestSnapshotOfAVMThatNeverStartedKeepsItsFiles(t *testing.T) {
	w, v := parent(t, false)
	seed := w.Dirs.VM(v.ID).Seed()
	if err := os.WriteFile(seed, []byte("files"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := w.CreateSnapshot(t.Context(), v.ID, "new", quiet{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.RestoreSnapshot(t.Context(), v.ID, s.ID, false, quiet{}); err != nil { // they are there still
		t.Fatal(err)
	}
	if err := os.Remove(seed); err != nil { // as the guest's first start does
		t.Fatal(err)
	}
	if _, err := w.RestoreSnapshot(t.Context(), v.ID, s.ID, false, quiet{}); err != nil {
		t.Fatal(err)
	}
	if is, err := os.ReadFile(seed); string(is) != "files" {
		t.Errorf("its first guest would get %q, %v", is, err)
	}
}
