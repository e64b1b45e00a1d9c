package vm

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"banger"
	"banger/internal/artifact"
	"banger/internal/paths"
	"banger/internal/shim"
)

// TestReconcile has a case for each point at which a daemon, a shim or the
// host can be cut off. before makes the world as it is found; a VM "devbox" of
// id is there already, running.
func TestReconcile(t *testing.T) {
	for name, tt := range map[string]struct {
		before func(w *world, id string) error
		want   []string
	}{
		"running goes on": {
			func(*world, string) error { return nil },
			[]string{"dir vms/devbox", "process devbox", "row devbox running"},
		},
		"stopped meanwhile": {
			func(w *world, id string) error { w.shims.vms[id].ends(shim.ReasonPoweroff); return nil },
			[]string{"dir vms/devbox", "row devbox stopped"},
		},
		"panicked meanwhile": {
			func(w *world, id string) error { w.shims.vms[id].ends(shim.ReasonPanic); return nil },
			[]string{"dir vms/devbox", "row devbox error"},
		},
		"shim killed": {
			func(w *world, id string) error { w.shims.vms[id].crash(); return nil },
			[]string{"dir vms/devbox", "row devbox error"},
		},
		"row says stopped and it runs": {
			func(w *world, id string) error {
				return w.rows.SetState(w.t.Context(), id, banger.StateStopped, banger.Runtime{})
			},
			[]string{"dir vms/devbox", "process devbox", "row devbox running"},
		},
		"ephemeral goes on": {
			func(w *world, id string) error { return w.ephemeral(id) },
			[]string{"dir vms/devbox", "process devbox", "row devbox running"},
		},
		"ephemeral whose shim was killed": {
			func(w *world, id string) error { w.shims.vms[id].crash(); return w.ephemeral(id) },
			nil,
		},
		"ephemeral whose owner went": {
			func(w *world, id string) error { w.shims.vms[id].ends(shim.ReasonOwnerGone); return w.ephemeral(id) },
			nil,
		},
		"ephemeral without a directory": {
			func(w *world, id string) error {
				w.shims.vms[id].crash()
				return errors.Join(w.ephemeral(id), os.RemoveAll(string(w.Dirs.VM(id))))
			},
			nil,
		},
		"creation cut off after its row": {
			func(w *world, id string) error {
				w.shims.vms[id].crash()
				return errors.Join(w.creating(id), os.RemoveAll(string(w.Dirs.VM(id))))
			},
			nil,
		},
		"creation cut off in its directory": {
			func(w *world, id string) error {
				w.shims.vms[id].crash()
				return errors.Join(w.creating(id), os.Rename(string(w.Dirs.VM(id)), string(w.newDir(id))),
					os.Remove(filepath.Join(string(w.newDir(id)), "launch.json")), os.Remove(w.newDir(id).ShimSocket()))
			},
			nil,
		},
		"fork cut off with all that it is given": {
			func(w *world, id string) error {
				w.shims.vms[id].crash()
				dir := w.newDir(id)
				return errors.Join(w.creating(id), os.RemoveAll(string(w.Dirs.VM(id))), os.Mkdir(string(dir), 0o700),
					hold(dir, w.row(id)), os.WriteFile(dir.Disk(), nil, 0o600), os.WriteFile(dir.Seed(), nil, 0o600),
					os.WriteFile(filepath.Join(string(dir), "disk.1.qcow2"), nil, 0o600))
			},
			nil,
		},
		"creation cut off before vm.json": {
			func(w *world, id string) error {
				w.shims.vms[id].crash()
				return errors.Join(w.creating(id), os.RemoveAll(string(w.Dirs.VM(id))), os.Mkdir(string(w.newDir(id)), 0o700),
					os.WriteFile(filepath.Join(string(w.newDir(id)), ".tmp-1"), nil, 0o600))
			},
			nil,
		},
		"creation cut off before its shim": {
			func(w *world, id string) error { w.shims.vms[id].crash(); return w.creating(id) },
			nil,
		},
		"creation cut off while the guest boots": {
			func(w *world, id string) error { return w.creating(id) },
			nil,
		},
		"first start that failed": {
			func(w *world, id string) error {
				w.shims.vms[id].crash()
				return w.rows.SetState(w.t.Context(), id, banger.StateCreated, banger.Runtime{})
			},
			[]string{"dir vms/devbox", "row devbox created"},
		},
		"suspended meanwhile": {
			func(w *world, id string) error { _, err := w.shims.vms[id].Suspend(w.t.Context()); return err },
			[]string{"dir vms/devbox", "row devbox suspended"},
		},
		"shim killed as soon as it had suspended": {
			func(w *world, id string) error {
				w.shims.vms[id].crash()
				return w.shims.vms[id].commitSuspend()
			},
			[]string{"dir vms/devbox", "row devbox suspended"},
		},
		"shim killed in the middle of suspending": {
			func(w *world, id string) error {
				w.shims.vms[id].crash()
				return os.Mkdir(w.Dirs.VM(id).Scratch("suspended"), 0o700)
			},
			[]string{"dir vms/devbox", "row devbox error"},
		},
		"kill of a suspended one cut off before its row": {
			func(w *world, id string) error {
				_, err := w.shims.vms[id].Suspend(w.t.Context())
				return errors.Join(err, w.rows.SetState(w.t.Context(), id, banger.StateSuspended, banger.Runtime{BootCount: 1}),
					os.Rename(w.Dirs.VM(id).Suspended(), w.Dirs.VM(id).Scratch("dropped")))
			},
			[]string{"dir vms/devbox", "row devbox stopped"},
		},
		"start of a suspended one cut off before its shim": {
			func(w *world, id string) error {
				_, err := w.shims.vms[id].Suspend(w.t.Context())
				return err // and the row says running
			},
			[]string{"dir vms/devbox", "row devbox suspended"},
		},
		"start cut off before its shim": {
			func(w *world, id string) error {
				w.shims.vms[id].ends(shim.ReasonStopped)
				return w.rows.SetState(w.t.Context(), id, banger.StateRunning, banger.Runtime{BootCount: 2})
			},
			[]string{"dir vms/devbox", "row devbox stopped"},
		},
		"first start cut off before its shim": {
			func(w *world, id string) error {
				w.shims.vms[id].crash()
				delete(w.shims.vms, id)
				return nil
			},
			[]string{"dir vms/devbox", "row devbox created"},
		},
		"deletion cut off after the directory": {
			func(w *world, id string) error {
				w.shims.vms[id].crash()
				return w.discard(id, w.Dirs.VM(id))
			},
			nil,
		},
		"deletion cut off after the row": {
			func(w *world, id string) error {
				w.shims.vms[id].crash()
				return errors.Join(w.discard(id, w.Dirs.VM(id)), w.rows.DeleteVM(w.t.Context(), id))
			},
			nil,
		},
		"deletion cut off in the trash": {
			func(w *world, id string) error {
				w.shims.vms[id].crash()
				return errors.Join(w.discard(id, w.Dirs.VM(id)), w.rows.DeleteVM(w.t.Context(), id), os.Remove(w.trashDir(id).Record()))
			},
			nil,
		},
		"row lost, shim alive": {
			func(w *world, id string) error { return w.rows.DeleteVM(w.t.Context(), id) },
			[]string{"dir vms/devbox", "process devbox", "row devbox running"},
		},
		"row lost, stopped": {
			func(w *world, id string) error {
				w.shims.vms[id].ends(shim.ReasonStopped)
				return w.rows.DeleteVM(w.t.Context(), id)
			},
			[]string{"dir vms/devbox", "row devbox stopped"},
		},
		"directory lost": {
			func(w *world, id string) error {
				w.shims.vms[id].crash()
				return os.RemoveAll(string(w.Dirs.VM(id)))
			},
			[]string{"row devbox error"},
		},
		"a stranger's directory": {
			func(w *world, id string) error {
				return os.WriteFile(filepath.Join(w.Dirs.VMs(), "README"), nil, 0o600)
			},
			[]string{"dir vms/README", "dir vms/devbox", "process devbox", "row devbox running"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			v := w.create(Create{Name: "devbox", Start: true, Wait: true})
			w.Manager.close() // the daemon is gone: nobody notices what happens now
			if err := tt.before(w, v.ID); err != nil {
				t.Fatal(err)
			}
			for range 2 { // what it does, it does once
				w.reconcile()
				w.want(tt.want...)
			}
			if _, err := os.Stat(w.Dirs.VM(v.ID).ShimSocket()); err == nil && len(w.shims.running()) == 0 {
				t.Error("the socket of a shim that is gone is still there")
			}
		})
	}
}

// ephemeral makes a VM one that was to go.
func (w *world) ephemeral(id string) error {
	row, err := w.rows.VM(w.t.Context(), id)
	if err != nil {
		return err
	}
	row.Spec.Ephemeral = true
	return w.rows.UpsertVM(w.t.Context(), row)
}

// creating makes a VM's creation one that was never acknowledged.
func (w *world) creating(id string) error {
	return w.rows.SetState(w.t.Context(), id, banger.StateCreated, banger.Runtime{Creating: true})
}

func TestReconcileBringsTheRecordInLine(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox"})
	row, err := w.rows.VM(t.Context(), v.ID)
	if err != nil {
		t.Fatal(err)
	}
	row.Name, row.Spec.DiskBytes = "renamed", 3*banger.GiB // as a restored snapshot has it
	if err := w.rows.UpsertVM(t.Context(), row); err != nil {
		t.Fatal(err)
	}
	w.reconcile()
	if h, err := ReadHeld(w.Dirs.VM(v.ID)); err != nil || h.Name != "renamed" || h.Spec.DiskBytes != row.Spec.DiskBytes {
		t.Errorf("got %+v, %v", h, err)
	}
}

func TestReconcileLeavesARecordThatIsRight(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Allow: []string{"example.com"}})
	before, err := os.Stat(w.Dirs.VM(v.ID).Record())
	if err != nil {
		t.Fatal(err)
	}
	w.reconcile()
	if after, err := os.Stat(w.Dirs.VM(v.ID).Record()); err != nil || !os.SameFile(before, after) {
		t.Errorf("it was written again: %v", err)
	}
}

func TestRestoredRowHasItsWorkspace(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox"})
	want := banger.Workspace{GuestPath: "/root/repo", SourcePath: "/src", BaseTree: "abc", User: "dev"}
	if v, err := w.SetWorkspace(t.Context(), v.ID, want); err != nil || v.Workspace != want {
		t.Fatalf("%+v, %v", v.Workspace, err)
	}
	if err := w.rows.DeleteVM(t.Context(), v.ID); err != nil {
		t.Fatal(err)
	}
	w.reconcile()
	if row, err := w.rows.VM(t.Context(), v.ID); err != nil || row.Workspace != want {
		t.Errorf("restored with %+v, %v", row.Workspace, err)
	}
}

func TestReconcileWritesTheWorkspaceIntoTheRecord(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox"})
	want := banger.Workspace{GuestPath: "/root/repo", SourcePath: "/src"}
	if err := w.rows.SetWorkspace(t.Context(), v.ID, want); err != nil { // and the daemon was killed
		t.Fatal(err)
	}
	w.reconcile()
	if h, err := ReadHeld(w.Dirs.VM(v.ID)); err != nil || h.Workspace != want {
		t.Errorf("the record has %+v, %v", h.Workspace, err)
	}
}

func TestAdoptedVMIsWatched(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true})
	w.reconcile()
	if v := w.get(v.ID); v.ShimPID != 41 {
		t.Errorf("got %+v", v)
	}
	w.shims.vms[v.ID].ends(shim.ReasonPoweroff)
	w.eventually("it is recorded", func() bool { return w.String() == "dir vms/devbox\nrow devbox stopped" })
}

func TestRestoredRowFindsAnotherPlaceIfItsOwnIsTaken(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true})
	w.Manager.close()
	if err := w.rows.DeleteVM(t.Context(), v.ID); err != nil {
		t.Fatal(err)
	}
	w.restart(w.Dirs)
	other := w.create(Create{Name: "devbox"})
	w.reconcile()
	restored := w.get(v.ID)
	if restored.State != banger.StateRunning || restored.Name == other.Name || restored.GuestIP == other.GuestIP {
		t.Errorf("got %+v beside %+v", restored, other)
	}
}

func TestDamagedRecordsDoNotKeepOthersFromWorking(t *testing.T) {
	w := newWorld(t)
	bad, good := w.create(Create{Name: "bad"}), w.create(Create{Name: "good"})
	if err := artifact.WriteFile(w.Dirs.VM(bad.ID).Record(), []byte("{")); err != nil {
		t.Fatal(err)
	}
	w.reconcile()
	if _, err := w.Start(t.Context(), bad.ID, false, false, quiet{}); err == nil {
		t.Error("a VM without a record was started")
	}
	v, err := w.Start(t.Context(), good.ID, false, false, quiet{})
	must(t, v, err)
	w.want("dir vms/bad", "dir vms/good", "process good", "row bad created", "row good running")
}

func TestHeldSurvivesUnknownAndMissingFields(t *testing.T) {
	dir := t.TempDir()
	text, _ := json.Marshal(map[string]any{"layout": 1, "id": banger.NewID(), "name": "x", "later": true, "spec": map[string]any{"layout": 1}})
	if err := os.WriteFile(filepath.Join(dir, "vm.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	h, err := ReadHeld(paths.VM(dir))
	if err != nil || h.Spec.VCPU != banger.DefaultVCPU || h.Spec.Layout != 1 {
		t.Errorf("got %+v, %v", h, err)
	}
}
