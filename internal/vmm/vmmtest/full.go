package vmmtest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"banger/internal/vmm"
)

// testFull fills the file system that a disk is on: a small one, which needs
// nothing of the host's own.
func (h Harness) testFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	cfg := h.prepare(t)
	small := filepath.Join(cfg.Dir, "small")
	if err := os.Mkdir(small, 0o700); err != nil {
		t.Fatal(err)
	}
	mount(t, "-t", "tmpfs", "-o", "size=256k", "banger-test", small)
	ballast := filepath.Join(small, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 192<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(small, "disk.img")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, diskSize); err != nil {
		t.Fatal(err)
	}
	cfg.Disks[0].Path = disk
	g := h.start(t, cfg, func(ctx context.Context, out vmm.IO) (vmm.Machine, error) { return h.Driver.Boot(ctx, cfg, out) })
	g.SetDeadline(t, bootLimit)
	if line := g.read(t); line != "hello" {
		t.Fatalf("the guest's first line is %q", line)
	}
	const length = 128 << 10 // more than the ballast leaves, and less than there is
	g.send(t, "disk fill %s 0 %d", diskSerial, length)
	g.awaitHalt(t)
	if err := g.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.awaitHalt(t) // there is no more room than before
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := g.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.SetDeadline(t, answerLimit)
	if got := g.read(t); got != "ok" {
		t.Errorf("what the guest wrote: %s", got)
	}
}

func (g *guest) awaitHalt(t *testing.T) {
	t.Helper()
	select {
	case <-g.halts:
	case <-time.After(answerLimit):
		t.Fatal("nobody said that the machine was halted")
	}
}

// mount mounts something for the time of a test, and after the machines of it.
func mount(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
		t.Skipf("cannot mount: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", args[len(args)-1]).CombinedOutput(); err != nil {
			t.Errorf("cannot unmount: %v: %s", err, out)
		}
	})
}
