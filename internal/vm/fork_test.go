package vm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/shim"
)

// parent is a world with one VM called box, whose disk has a text.
func parent(t *testing.T, start bool) (*world, View) {
	t.Helper()
	w := newWorld(t)
	v := w.create(Create{Name: "box", Start: start, Wait: start})
	w.writeDisk(v.ID, "of the parent")
	return w, v
}

func (w *world) writeDisk(id, text string) {
	w.t.Helper()
	f, err := os.OpenFile(w.Dirs.VM(id).Disk(), os.O_WRONLY, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(append([]byte(text), make([]byte, 32)...), 0); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) readDisk(id string) string {
	w.t.Helper()
	f, err := os.Open(w.Dirs.VM(id).Disk())
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	text := make([]byte, 32)
	if _, err := f.ReadAt(text, 0); err != nil {
		w.t.Fatal(err)
	}
	return strings.TrimRight(string(text), "\x00")
}

// left lists what is in a VM's directory and was to go.
func (w *world) left(id string) []string {
	w.t.Helper()
	a, err := filepath.Glob(w.Dirs.VM(id).Scratch("*"))
	b, err2 := filepath.Glob(unfinishedSnapshot(w.Dirs.VM(id), "*"))
	if err := errors.Join(err, err2); err != nil {
		w.t.Fatal(err)
	}
	return append(a, b...)
}

func TestForksOfARunningVMGoOnWhereItIs(t *testing.T) {
	w, v := parent(t, true)
	workspace := banger.Workspace{GuestPath: "/root/repo", HeadCommit: "abc"}
	if _, err := w.SetWorkspace(t.Context(), v.ID, workspace); err != nil {
		t.Fatal(err)
	}
	out, err := w.Fork(t.Context(), v.ID, Fork{Count: 3}, quiet{})
	if err != nil || len(out.VMs) != 3 || out.Pause != 70*time.Millisecond {
		t.Fatalf("%+v %v", out, err)
	}
	w.want("dir vms/box", "dir vms/box-1", "dir vms/box-2", "dir vms/box-3",
		"process box", "process box-1", "process box-2", "process box-3",
		"row box running", "row box-1 running", "row box-2 running", "row box-3 running")
	addresses := map[string]bool{v.GuestIP: true}
	for _, c := range out.VMs {
		s := w.shims.vms[c.ID]
		if r := s.launch.Restore; r == nil || !r.Strict || string(r.Token) != "token" || s.memory != "box" {
			t.Errorf("%s: launched with %+v, memory %q", c.Name, r, s.memory)
		}
		if s.launch.Machine.Dir != c.Dir || s.launch.Setup.MachineID != c.ID || s.launch.Setup.Hostname != c.Name {
			t.Errorf("%s: it is set up as %+v in %s", c.Name, s.launch.Setup, s.launch.Machine.Dir)
		}
		if c.Spec.Parent != v.ID || c.Workspace != workspace || c.Runtime.Creating || addresses[c.GuestIP] || w.readDisk(c.ID) != "of the parent" {
			t.Errorf("%s: %+v with the disk %q", c.Name, c.VM, w.readDisk(c.ID))
		}
		if h, err := ReadHeld(w.Dirs.VM(c.ID)); err != nil || h.Spec.Parent != v.ID {
			t.Errorf("%s: its record: %+v %v", c.Name, h, err)
		}
		addresses[c.GuestIP] = true
	}
	w.writeDisk(v.ID, "changed")
	if got := w.readDisk(out.VMs[0].ID); got != "of the parent" {
		t.Errorf("a fork sees what its parent writes: %q", got)
	}
	if left := w.left(v.ID); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestForkOfAPausedVMLeavesItPaused(t *testing.T) {
	w, v := parent(t, true)
	if _, err := w.Pause(t.Context(), v.ID); err != nil {
		t.Fatal(err)
	}
	out, err := w.Fork(t.Context(), v.ID, Fork{}, quiet{})
	if err != nil || out.VMs[0].State != banger.StateRunning || w.get(v.ID).State != banger.StatePaused {
		t.Errorf("%+v %v; the parent is %s", out, err, w.get(v.ID).State)
	}
}

func TestForkWaitsForAGuestThatIsComingUp(t *testing.T) {
	w := newWorld(t)
	w.shims.guest = func(s *fakeShim) {
		if s.launch.Restore != nil {
			s.becomes(shim.Running)
		}
	}
	v := w.create(Create{Name: "box", Start: true})
	waits := onStage(func(stage string) {
		if stage == "wait for guest" {
			w.shims.vms[v.ID].becomes(shim.Running)
		}
	})
	if _, err := w.Fork(t.Context(), v.ID, Fork{}, waits); err != nil {
		t.Error(err)
	}
}

func TestForkOfASuspendedVMLeavesItSuspended(t *testing.T) {
	w, v := parent(t, true)
	if _, err := w.Suspend(t.Context(), v.ID, quiet{}); err != nil {
		t.Fatal(err)
	}
	out, err := w.Fork(t.Context(), v.ID, Fork{Count: 2, Prefix: "twin"}, quiet{})
	if err != nil {
		t.Fatal(err)
	}
	w.want("dir vms/box", "dir vms/twin-1", "dir vms/twin-2", "process twin-1", "process twin-2",
		"row box suspended", "row twin-1 running", "row twin-2 running")
	if s := w.shims.vms[out.VMs[1].ID]; s.memory != "box" || w.readDisk(out.VMs[1].ID) != "of the parent" {
		t.Errorf("memory %q, disk %q", s.memory, w.readDisk(out.VMs[1].ID))
	}
}

func TestForkOfASuspendedVMThatIsDamagedMakesNothing(t *testing.T) {
	w, v := parent(t, true)
	if _, err := w.Suspend(t.Context(), v.ID, quiet{}); err != nil {
		t.Fatal(err)
	}
	damage(t, filepath.Join(w.Dirs.VM(v.ID).Suspended(), "memory"))
	if _, err := w.Fork(t.Context(), v.ID, Fork{}, quiet{}); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("got %v", err)
	}
	w.want("dir vms/box", "row box suspended")
}

// damage changes a byte in the middle of what a file has.
func damage(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("X"), 1); err != nil {
		t.Fatal(err)
	}
}

func TestForksOfAVMThatDoesNotRunBoot(t *testing.T) {
	for name, prepare := range map[string]func(*world, View) error{
		"created": func(*world, View) error { return nil },
		"stopped": func(w *world, v View) error {
			_, err := w.Start(t.Context(), v.ID, false, true, quiet{})
			_, err2 := w.Stop(t.Context(), v.ID, time.Second, quiet{})
			return errors.Join(err, err2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, v := parent(t, false)
			if err := prepare(w, v); err != nil {
				t.Fatal(err)
			}
			// Files for a guest that was never up, which its copies are to get as well.
			if err := os.WriteFile(w.Dirs.VM(v.ID).Seed(), []byte("files"), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := w.Fork(t.Context(), v.ID, Fork{Count: 2}, quiet{})
			if err != nil {
				t.Fatal(err)
			}
			w.want("dir vms/box", "dir vms/box-1", "dir vms/box-2", "process box-1", "process box-2",
				"row box "+name, "row box-1 running", "row box-2 running")
			for _, c := range out.VMs {
				if w.shims.vms[c.ID].launch.Restore != nil || w.readDisk(c.ID) != "of the parent" {
					t.Errorf("%s has the disk %q", c.Name, w.readDisk(c.ID))
				}
				if seed, err := os.ReadFile(w.Dirs.VM(c.ID).Seed()); string(seed) != "files" {
					t.Errorf("%s has the files %q, %v", c.Name, seed, err)
				}
			}
		})
	}
}

func TestForksToAnyDepth(t *testing.T) {
	w, v := parent(t, true)
	for range 5 {
		out, err := w.Fork(t.Context(), v.ID, Fork{Prefix: "g"}, quiet{})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Delete(t.Context(), v.ID, true); err != nil {
			t.Fatal(err)
		}
		if v = out.VMs[0]; w.readDisk(v.ID) != "of the parent" {
			t.Errorf("%s has the disk %q", v.Name, w.readDisk(v.ID))
		}
	}
}

func TestForkThatFailsLeavesNothingAndItsParentRunning(t *testing.T) {
	boom := banger.Errorf(banger.Unavailable, "it cannot")
	for name, prepare := range map[string]func(*world, func()){
		"save":  func(w *world, _ func()) { w.shims.saveErr = boom },
		"image": func(w *world, _ func()) { w.imageErr = boom },
		"second child": func(w *world, _ func()) {
			w.shims.refuse = func(l shim.Launch) error {
				if l.Name == "box-2" {
					return boom
				}
				return nil
			}
		},
		"a guest that dies": func(w *world, _ func()) {
			w.shims.guest = func(s *fakeShim) {
				if s.becomes(shim.Running); s.launch.Name == "box-3" {
					s.ends(shim.ReasonNeverReady)
				}
			}
		},
		"ledger":               func(w *world, _ func()) { w.db.fail(boom) },
		"cancelled after save": func(w *world, cancel func()) { w.shims.onSave = cancel },
	} {
		t.Run(name, func(t *testing.T) {
			w, v := parent(t, true)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			prepare(w, cancel)
			out, err := w.Fork(ctx, v.ID, Fork{Count: 3}, quiet{})
			if err == nil || len(out.VMs) > 0 {
				t.Errorf("made %d, %v", len(out.VMs), err)
			}
			if ctx.Err() == nil && banger.CodeOf(err) != banger.Unavailable || ctx.Err() != nil && banger.CodeOf(err) != banger.Cancelled {
				t.Errorf("got %s: %v", banger.CodeOf(err), err)
			}
			w.want("dir vms/box", "process box", "row box running")
			if left := w.left(v.ID); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

func TestDaemonKilledInTheMiddleOfAForkLeavesNothing(t *testing.T) {
	for name, hang := range map[string]func(w *world, here func()){
		"after the save": func(w *world, here func()) { w.shims.onSave = here },
		"while children start": func(w *world, here func()) {
			w.shims.refuse = func(l shim.Launch) error {
				if l.Name == "box-3" {
					here()
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, v := parent(t, true)
			reached, never := make(chan struct{}), make(chan struct{})
			hang(w, func() { close(reached); <-never })
			m := w.Manager
			go func() { _, _ = m.Fork(context.Background(), v.ID, Fork{Count: 3}, quiet{}) }()
			<-reached
			if name == "while children start" { // the others have come up meanwhile
				w.eventually("two children run", func() bool { return len(w.shims.running()) == 3 })
			}
			w.shims.onSave, w.shims.refuse = nil, nil
			for range 2 {
				w.reconcile()
				w.want("dir vms/box", "process box", "row box running")
			}
			if left := w.left(v.ID); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

func TestForksTakeTheFirstRunOfFreeNames(t *testing.T) {
	w, v := parent(t, true)
	for _, name := range []string{"box-1", "box-4"} {
		w.create(Create{Name: name})
	}
	for _, want := range [][]string{{"box-5", "box-6", "box-7"}, {"box-2", "box-3"}, {"box-8"}} {
		out, err := w.Fork(t.Context(), v.ID, Fork{Count: len(want)}, quiet{})
		var names []string
		for _, c := range out.VMs {
			names = append(names, c.Name)
		}
		if err != nil || !slices.Equal(names, want) {
			t.Errorf("got %q, want %q: %v", names, want, err)
		}
	}
}

func TestForkRefusesWhatCannotBe(t *testing.T) {
	w, v := parent(t, true)
	for _, f := range []Fork{{Count: -1}, {Count: 257}, {Prefix: "Box"}, {Prefix: strings.Repeat("a", 62)}} {
		if _, err := w.Fork(t.Context(), v.ID, f, quiet{}); banger.CodeOf(err) != banger.BadRequest {
			t.Errorf("%+v: %v", f, err)
		}
	}
	w.want("dir vms/box", "process box", "row box running")
}

func TestEphemeralForksGoWithoutAnOwner(t *testing.T) {
	w, v := parent(t, true)
	w.ownerGrace = 0
	if _, err := w.Fork(t.Context(), v.ID, Fork{Count: 2, Ephemeral: true}, quiet{}); err != nil && banger.CodeOf(err) != banger.NotFound {
		t.Fatal(err)
	}
	w.eventually("they go", func() bool { return w.String() == "dir vms/box\nprocess box\nrow box running" })
}
