package qemu

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/vmm"
	"banger/internal/vmm/child"
	"banger/internal/vmm/vmmtest"
)

// waiting is a QEMU that takes orders and has run nothing of its guest yet.
func waiting(t *testing.T, d Driver, without ...string) *machine {
	t.Helper()
	cfg := vmmtest.GuestConfig(t, mustFind(t), vmm.TCG)
	cfg.Dir = t.TempDir()
	w, err := openWires(cfg)
	if err != nil {
		t.Fatal(err)
	}
	args := arguments(cfg, nil)
	for _, name := range without {
		i := slices.Index(args, name)
		args = slices.Delete(args, i, i+2)
	}
	m, err := launch(cfg, args, d, w, vmm.IO{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Signal(os.Kill); <-m.Done(); m.agent.Close() })
	if err := m.greet(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestIsolationInForce is for what the driver asks for itself; that each line is
// read from the kernel, the package child's tests try.
func TestIsolationInForce(t *testing.T) {
	if !child.CanIsolate(namespaces) {
		t.Skip("this host does not let us make namespaces")
	}
	full := waiting(t, Driver{}).Isolation()
	t.Logf("in force: %s", strings.Join(full, ", "))
	want := []string{"user namespace", "network namespace", "ipc namespace", "uts namespace", "mount namespace", "no new privileges", "seccomp", "oom_score_adj 300"}
	if child.LandlockVersion() > 0 {
		want = append(want, child.Landlock)
	}
	if !slices.Equal(full, want) {
		t.Errorf("in force: %q, want %q", full, want)
	}
	for lifted, got := range map[string][]string{
		"network namespace": waiting(t, Measured()).Isolation(),
		"seccomp":           waiting(t, Driver{}, "-sandbox").Isolation(),
	} {
		less := slices.DeleteFunc(slices.Clone(want), func(s string) bool { return s == lifted })
		if !slices.Equal(got, less) {
			t.Errorf("without %s: %q, want %q", lifted, got, less)
		}
	}
}

// TestFilesOfTheUserAreOutOfReach orders QEMU, as whoever has taken it over would,
// to open what its user can.
func TestFilesOfTheUserAreOutOfReach(t *testing.T) {
	if child.LandlockVersion() == 0 {
		t.Skip("this kernel has no Landlock")
	}
	m := waiting(t, Driver{})
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, readable := range map[string]bool{secret: false, filepath.Join(m.cfg.Dir, "x"): false, "/etc/passwd": false, m.cfg.Kernel: true} {
		err := m.command(t.Context(), "blockdev-add", object{
			"driver": "file", "node-name": "stolen", "filename": name, "read-only": true, "locking": "off",
		})
		if readable != (err == nil) {
			t.Errorf("%s: opened %v, want %v (%v)", name, err == nil, readable, err)
		}
	}
}

// TestWithheldIsWhatTheHostRefuses asks in a user namespace that may have no other
// in it, and again here.
func TestWithheldIsWhatTheHostRefuses(t *testing.T) {
	if os.Getenv("BANGER_TEST_WITHHELD") != "" {
		fmt.Println("withheld:", Withheld())
		return
	}
	if !child.CanIsolate(namespaces) {
		t.Skip("this host does not let us make namespaces")
	}
	for want, script := range map[string]string{
		"withheld: [user namespace network namespace ipc namespace uts namespace mount namespace": `echo 0 >/proc/sys/user/max_user_namespaces && exec "$0" -test.run=^TestWithheld`,
		"withheld: [network namespace": `echo 0 >/proc/sys/user/max_net_namespaces && exec "$0" -test.run=^TestWithheld`,
	} {
		cmd := exec.Command("/bin/sh", "-c", script, os.Args[0])
		cmd.Env = append(os.Environ(), "BANGER_TEST_WITHHELD=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		if said, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(said), want) {
			t.Errorf("want %q: %v\n%s", want, err, said)
		}
	}
	if got := Withheld(); slices.Contains(got, "user namespace") {
		t.Errorf("here: %q", got)
	}
}

func TestProgramFilesAreThoseOfItsPrefix(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "p/bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	real, link, loose := filepath.Join(dir, "p/bin/qemu"), filepath.Join(dir, "link"), filepath.Join(dir, "loose")
	for _, name := range []string{real, loose} {
		if err := os.WriteFile(name, nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	if got := programFiles(link); !slices.Contains(got, filepath.Join(dir, "p/share/qemu")) || slices.Contains(got, dir) || slices.Contains(got, filepath.Join(dir, "p")) {
		t.Errorf("through a link: %q", got)
	}
	if got := programFiles(loose); !slices.Contains(got, loose) || !slices.Contains(got, filepath.Join(dir, "pc-bios")) || slices.Contains(got, dir) {
		t.Errorf("beside its build: %q", got)
	}
}
