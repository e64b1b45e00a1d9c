package qemu

import (
	"context"
	"os"
	"path/filepath"
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
