package qemu

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/vmm"
	"banger/internal/vmm/vmmtest"
)

// pretender is a VMM that runs a shell script instead.
func pretender(t *testing.T, shell string) vmm.Config {
	t.Helper()
	cfg := vmmtest.GuestConfig(t, mustFind(t), vmm.TCG)
	cfg.Dir = t.TempDir()
	cfg.Binary = filepath.Join(cfg.Dir, "qemu")
	if err := os.WriteFile(cfg.Binary, []byte("#!/bin/sh\n"+shell), 0o700); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestBootGivesUpOnASilentVMM(t *testing.T) {
	cfg := pretender(t, "exec sleep 1000\n")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := (Driver{}).Boot(ctx, cfg, vmm.IO{}); banger.CodeOf(err) != banger.Cancelled {
		t.Errorf("err = %v", err)
	}
}

func TestBootRepeatsWhatTheVMMSaidLast(t *testing.T) {
	cfg := pretender(t, "echo 'qemu: warning: x' >&2; echo 'qemu: no luck today' >&2; exit 1\n")
	_, err := Driver{}.Boot(t.Context(), cfg, vmm.IO{})
	if banger.CodeOf(err) != banger.Unavailable || !strings.HasSuffix(err.Error(), "no luck today") {
		t.Errorf("err = %v", err)
	}
}

func TestKernelNeedsAnEntryPoint(t *testing.T) {
	cfg := vmmtest.GuestConfig(t, mustFind(t), vmm.TCG)
	if err := checkKernel(cfg.Kernel); err != nil {
		t.Errorf("Debian's: %v", err)
	}
	self, err := os.Executable() // an ELF file, and no kernel
	if err != nil {
		t.Fatal(err)
	}
	if err := checkKernel(self); banger.CodeOf(err) != banger.BadRequest || !strings.Contains(err.Error(), "PVH") {
		t.Errorf("this test: %v", err)
	}
}

// TestIsolationInForce compares what a machine claims with /proc.
func TestIsolationInForce(t *testing.T) {
	cfg := vmmtest.GuestConfig(t, mustFind(t), vmm.TCG)
	cfg.Dir = t.TempDir()
	m, err := Driver{}.Boot(t.Context(), cfg, vmm.IO{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { m.Signal(os.Kill); <-m.Done() }()
	claimed := strings.Join(m.Isolation(), ", ")
	t.Logf("in force: %s", claimed)
	proc := filepath.Join("/proc", strconv.Itoa(m.PID()))
	for name, link := range map[string]string{
		"user namespace": "user", "network namespace": "net", "ipc namespace": "ipc",
		"uts namespace": "uts", "mount namespace": "mnt",
	} {
		ours, err1 := os.Readlink(filepath.Join("/proc/self/ns", link))
		its, err2 := os.Readlink(filepath.Join(proc, "ns", link))
		if err1 != nil || err2 != nil || (ours != its) != strings.Contains(claimed, name) {
			t.Errorf("%s: %s and %s (%v, %v)", name, ours, its, err1, err2)
		}
	}
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil || !strings.Contains(string(status), "Seccomp:\t2") || !strings.Contains(string(status), "NoNewPrivs:\t1") {
		t.Errorf("no seccomp filter in force (%v)", err)
	}
}
