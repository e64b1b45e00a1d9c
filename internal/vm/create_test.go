package vm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"banger"
	"banger/internal/shim"

	"golang.org/x/sys/unix"
)

func TestCreateMakesARowAndADirectory(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox"})
	w.want("dir vms/devbox", "row devbox created")
	if v.State != banger.StateCreated || v.ImageName != "deb" || v.GuestIP != "10.77.0.2" || v.Runtime.Creating {
		t.Errorf("got %+v", v)
	}
	disk, err := os.Stat(w.Dirs.VM(v.ID).Disk())
	if err != nil || disk.Size() != banger.GiB {
		t.Error(disk, err)
	}
	if h, err := ReadHeld(w.Dirs.VM(v.ID)); err != nil || h.Name != "devbox" || h.GuestIP != v.GuestIP {
		t.Errorf("got %+v, %v", h, err)
	}
}

func TestCreateAndStartTellsTheShimWhatToRun(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true})
	w.want("dir vms/devbox", "process devbox", "row devbox running")
	if v.State != banger.StateRunning || v.ShimPID != 41 || v.Runtime.VMM != "fake" || v.Runtime.BootCount != 1 {
		t.Errorf("got %+v", v)
	}
	l := w.shims.vms[v.ID].launch
	if l.Machine.Cmdline != "banger.image=deb@sha256:"+testImage.Digest || l.Machine.Kernel != "/vmlinuz" || l.Machine.MemoryMiB != 256 {
		t.Errorf("got %+v", l.Machine)
	}
	if l.Setup.Hostname != "devbox" || l.Setup.MachineID != v.ID || l.Setup.GuestIP != "10.77.0.2" || len(l.Setup.Env) != 1 {
		t.Errorf("got %+v", l.Setup)
	}
}

func TestNameIsGeneratedWhereNoneIsGiven(t *testing.T) {
	w := newWorld(t)
	if v := w.create(Create{}); banger.ValidateVMName(v.Name) != nil {
		t.Errorf("got %q", v.Name)
	}
}

func TestCreateRefusesBeforeAnythingIsTouched(t *testing.T) {
	w := newWorld(t)
	w.create(Create{Name: "taken"})
	for _, tt := range []struct {
		c    Create
		code banger.Code
		want string
	}{
		{Create{Name: "Devbox"}, banger.BadRequest, "position 1"},
		{Create{Name: "dev_box"}, banger.BadRequest, "position 4"},
		{Create{Name: " devbox"}, banger.BadRequest, "position 1"},
		{Create{Name: "host"}, banger.BadRequest, "host itself"},
		{Create{Name: strings.Repeat("a", 64)}, banger.BadRequest, "64 characters"},
		{Create{Name: strings.Repeat("ab", 16)}, banger.BadRequest, "form of an id"},
		{Create{Name: "taken"}, banger.AlreadyExists, "already"},
		{Create{VCPU: -1}, banger.BadRequest, "vCPU"},
		{Create{VCPU: 1000}, banger.BadRequest, "vCPU"},
		{Create{MemoryMiB: 64}, banger.BadRequest, "memory size 64 MiB"},
		{Create{MemoryMiB: 1 << 40}, banger.BadRequest, "the host's"},
		{Create{DiskBytes: banger.MiB}, banger.BadRequest, "disk size 1M"},
		{Create{DiskBytes: banger.TiB}, banger.BadRequest, "disk size 1T"},
		{Create{Init: "runit"}, banger.BadRequest, "runit"},
	} {
		tt.c.Start = true
		stage := onStage(func(name string) { t.Errorf("%+v: began %q", tt.c, name) })
		_, err := w.Create(t.Context(), tt.c, stage)
		if banger.CodeOf(err) != tt.code || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v", tt.c, err)
		}
	}
	w.want("dir vms/taken", "row taken created")
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	boom := banger.Errorf(banger.Unavailable, "boom").Hint("do this")
	for name, breakIt := range map[string]func(*world){
		"image":          func(w *world) { w.imageErr = boom },
		"kernel":         func(w *world) { w.kernelErr = boom },
		"addresses":      func(w *world) { w.config.NetworkPrefix = "not a network" },
		"initramfs":      func(w *world) { w.initErr = boom },
		"vmm":            func(w *world) { w.chooseErr = boom },
		"shim":           func(w *world) { w.shims.startErr = boom },
		"acknowledgment": func(w *world) { w.db.fail(boom) },
		"directory": func(w *world) {
			if err := os.WriteFile(w.Dirs.VMs(), nil, 0o600); err != nil {
				w.t.Fatal(err)
			}
		},
		"disk": func(w *world) {
			w.Dirs.Cache = filepath.Join(w.t.TempDir(), "file")
			if err := os.WriteFile(w.Dirs.Cache, nil, 0o600); err != nil {
				w.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			breakIt(w)
			_, err := w.Create(t.Context(), Create{Name: "devbox", Start: true, Wait: true}, quiet{})
			if err == nil {
				t.Fatal("it went well")
			}
			if errors.Is(err, boom) && (banger.CodeOf(err) != banger.Unavailable || len(banger.HintsOf(err)) != 1) {
				t.Errorf("%v lost its code or hint: %v", err, banger.HintsOf(err))
			}
			if name == "directory" {
				_ = os.Remove(w.Dirs.VMs())
			}
			w.want("")
			if w.liveOf("") != nil || len(w.live) > 0 {
				t.Errorf("it is remembered: %v", w.live)
			}
		})
	}
}

func TestCancelledCreateLeavesNothing(t *testing.T) {
	for _, stage := range []string{"image debian-bookworm", "create disk", "start VMM", "wait for guest"} {
		t.Run(stage, func(t *testing.T) {
			w := newWorld(t)
			w.shims.guest = func(*fakeShim) {} // never comes up
			ctx, cancel := context.WithCancel(t.Context())
			seen := false
			_, err := w.Create(ctx, Create{Name: "devbox", Start: true, Wait: true}, onStage(func(s string) {
				if s == stage {
					seen = true
					cancel()
				}
			}))
			if !seen || banger.CodeOf(err) != banger.Cancelled {
				t.Errorf("stage begun: %v, got %v", seen, err)
			}
			w.want("")
		})
	}
}

func TestGuestThatDiesAtBootStaysAsError(t *testing.T) {
	w := newWorld(t)
	w.shims.guest = func(s *fakeShim) { s.ends(shim.ReasonPanic) }
	_, err := w.Create(t.Context(), Create{Name: "devbox", Start: true, Wait: true}, quiet{})
	if err == nil || !strings.Contains(err.Error(), "because panic\nlast words") {
		t.Fatal(err)
	}
	w.want("dir vms/devbox", "row devbox error")
	list, _ := w.List(t.Context())
	if len(list) != 1 || list[0].State != banger.StateError || !strings.Contains(list[0].LastError, "because panic") {
		t.Errorf("got %+v", list)
	}
	w.reconcile()
	w.want("dir vms/devbox", "row devbox error")
}

func TestEphemeralGuestThatDiesAtBootGoes(t *testing.T) {
	w := newWorld(t)
	w.shims.guest = func(s *fakeShim) { s.ends(shim.ReasonNeverReady) }
	_, err := w.Create(t.Context(), Create{Name: "devbox", Start: true, Wait: true, Ephemeral: true}, quiet{})
	if err == nil || !strings.Contains(err.Error(), "last words") {
		t.Fatal(err)
	}
	w.want("")
}

func TestSlowGuestIsKeptEvenIfEphemeral(t *testing.T) {
	w := newWorld(t)
	w.readyTimeout = 20 * time.Millisecond
	w.shims.guest = func(*fakeShim) {}
	_, err := w.Create(t.Context(), Create{Name: "devbox", Start: true, Wait: true, Ephemeral: true}, quiet{})
	if banger.CodeOf(err) != banger.Unavailable || !strings.Contains(strings.Join(banger.HintsOf(err), "\n"), "banger vm logs devbox") {
		t.Fatal(err, banger.HintsOf(err))
	}
	w.want("dir vms/devbox", "process devbox", "row devbox running")
	list, _ := w.List(t.Context())
	if len(list) != 1 || list[0].Spec.Ephemeral || w.shims.vms[list[0].ID].status.Ephemeral {
		t.Errorf("it would still go: %+v", list)
	}
}

func TestGuestOfAVMMThatWaitsIsWaitedFor(t *testing.T) {
	w := newWorld(t)
	w.readyTimeout = time.Millisecond
	asked := 0
	w.grace = func(pid int, limit time.Duration) time.Duration {
		if asked++; pid != os.Getpid() { // nothing is known of it yet
			return time.Duration(asked) * limit
		}
		for _, s := range w.shims.vms {
			s.becomes(shim.Running)
		}
		return time.Hour
	}
	w.shims.guest = func(*fakeShim) {}
	if _, err := w.Create(t.Context(), Create{Name: "devbox", Start: true, Wait: true}, quiet{}); err != nil {
		t.Error(err)
	}
}

func TestOneNameIsGivenOnce(t *testing.T) {
	w := newWorld(t)
	var wins, losses int
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			_, err := w.Create(t.Context(), Create{Name: "devbox", Start: true}, quiet{})
			mu.Lock()
			defer mu.Unlock()
			switch banger.CodeOf(err) {
			case "":
				wins++
			case banger.AlreadyExists:
				losses++
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if wins != 1 || losses != 7 {
		t.Errorf("%d won, %d lost", wins, losses)
	}
	w.want("dir vms/devbox", "process devbox", "row devbox running")
}

func TestExhaustedAddressesAreAnError(t *testing.T) {
	w := newWorld(t)
	w.config.NetworkPrefix = "10.5.0.0/30"
	w.create(Create{Name: "a"})
	_, err := w.Create(t.Context(), Create{Name: "b"}, quiet{})
	if err == nil || !strings.Contains(err.Error(), "addresses of 10.5.0.0/30 are taken") {
		t.Error(err)
	}
	w.want("dir vms/a", "row a created")
}

func TestDiskFullSaysSo(t *testing.T) {
	err := fileError(&os.PathError{Op: "write", Path: "disk", Err: unix.ENOSPC})
	if banger.CodeOf(err) != banger.NoSpace || len(banger.HintsOf(err)) == 0 {
		t.Error(err)
	}
}

func TestUnownedEphemeralVMGoes(t *testing.T) {
	w := newWorld(t)
	w.ownerGrace = time.Millisecond
	w.create(Create{Name: "devbox", Start: true, Wait: true, Ephemeral: true})
	w.eventually("the VM goes", func() bool { return w.String() == "" })
}

func TestOwnedEphemeralVMStaysUntilItsShimEnds(t *testing.T) {
	w := newWorld(t)
	w.shims.guest = func(s *fakeShim) { s.status.Owners = 1; s.becomes(shim.Running) }
	v := w.create(Create{Name: "devbox", Start: true, Wait: true, Ephemeral: true})
	w.removeUnowned(t.Context(), w.liveOf(v.ID))
	w.want("dir vms/devbox", "process devbox", "row devbox running")
	w.shims.vms[v.ID].ends(shim.ReasonOwnerGone)
	w.eventually("the VM goes", func() bool { return w.String() == "" })
}

func TestGuestsTrustWhatTheHostDoesWhenAsked(t *testing.T) {
	w := newWorld(t)
	w.ownCAs = func() ([]byte, []string) { return []byte("of the host"), []string{"one was broken"} }
	for i, on := range []bool{false, true} {
		w.config.InheritCA = on
		var p warned
		v, err := w.Create(t.Context(), Create{Name: []string{"without", "with"}[i], Start: true}, &p)
		if err != nil {
			t.Fatal(err)
		}
		trust := w.shims.vms[v.ID].launch.Setup.Trust
		if (trust == "of the host") != on || !on && trust != "" || (p.String() == "inherit_ca: one was broken\n") != on {
			t.Errorf("with inherit_ca = %v: %q, %q", on, trust, p.String())
		}
	}
}
