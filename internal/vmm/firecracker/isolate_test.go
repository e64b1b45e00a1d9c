package firecracker

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"banger"
	"banger/internal/vmm/child"
)

// TestIsolationInForce is of the stand-in, which is confined as Firecracker is but for the system call
// filter, which is Firecracker's own. That each line is read from the kernel the package child's tests try.
func TestIsolationInForce(t *testing.T) {
	if !child.CanIsolate(namespaces) {
		t.Skip("this host does not let us make namespaces")
	}
	want := []string{"user namespace", "network namespace", "ipc namespace", "uts namespace", "mount namespace", "no new privileges", "oom_score_adj 300"}
	if child.LandlockVersion() > 0 {
		want = append(want, child.Landlock)
	}
	for _, card := range []bool{true, false} {
		r := newRig(t)
		if card && r.cfg.NIC == nil {
			continue
		}
		if !card {
			r.cfg.NIC = nil
		}
		if err := r.boot(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := r.machine.Isolation(); !slices.Equal(got, want) {
			t.Errorf("with a card %v: in force: %q, want %q", card, got, want)
		}
		r.end()
	}
}

// TestFilesOfTheUserAreOutOfReach has the stand-in open, as whoever has taken a Firecracker over would,
// what its user can.
func TestFilesOfTheUserAreOutOfReach(t *testing.T) {
	if child.LandlockVersion() == 0 {
		t.Skip("this kernel has no Landlock")
	}
	r := newRig(t)
	if err := r.boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, readable := range map[string]bool{
		secret: false, "/etc/passwd": false, filepath.Join(r.cfg.Dir, "x"): false,
		r.cfg.Kernel: true, diskPath(1): true, r.cfg.At("root.img"): true, // by any name
	} {
		err := r.machine.(*machine).call(t.Context(), request{"PATCH", "/drives/disk1", driveUpdate{driveID(1), path}}, nil)
		if readable != (err == nil) {
			t.Errorf("%s: opened %v, want %v (%v)", path, err == nil, readable, err)
		}
	}
	// Nor does it get more of a disk than the guest has.
	err := r.machine.(*machine).call(t.Context(), request{"PATCH", "/drives/disk0", driveUpdate{driveID(0), diskPath(1)}}, nil)
	if err == nil || banger.CodeOf(err) == banger.NotRunning {
		t.Errorf("a disk to read is opened to be written: %v", err)
	}
}
