package vmmtest

import (
	"os"
	"path/filepath"
	"testing"

	"banger/internal/vmm"
)

func TestFakeConforms(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	Run(t, Harness{Driver: Fake{}, NoDevices: true, Config: vmm.Config{
		Binary: GuestBinary(t), Accel: vmm.TCG, VCPU: 1, MemoryMiB: 128, Kernel: empty,
	}})
}
