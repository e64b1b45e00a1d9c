package firecracker

import (
	"debug/elf"
	"os"
	"path/filepath"
	"testing"

	"banger/internal/vmm"
	"banger/internal/vmm/vmmtest"
	"banger/internal/vmm/vmmtest/standin"
)

// inPlace is a machine for the stand-in, whose kernel is any program.
func inPlace(t *testing.T, s *standin.StandIn) vmm.Config {
	t.Helper()
	initrd := filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(initrd, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	kernel, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := elf.Open(kernel); err != nil {
		t.Fatal(err)
	}
	return vmm.Config{Binary: s.Binary, Accel: vmm.KVM, VCPU: 1, MemoryMiB: 64, Kernel: kernel, Initrd: initrd}
}

// TestConformanceInPlaceOfFirecracker runs the whole suite on the stand-in.
func TestConformanceInPlaceOfFirecracker(t *testing.T) {
	if err := CanMakeCards("/proc/self/exe"); err != nil {
		t.Skip(err)
	}
	// The second processes of the suite are killed, and leave nothing but in here.
	const second = "BANGER_TEST_STANDIN"
	if os.Getenv(second) == "" {
		t.Setenv(second, "1")
		t.Setenv("TMPDIR", t.TempDir())
	}
	s := standin.New(t)
	vmmtest.Run(t, vmmtest.Harness{Driver: Driver{}, Config: inPlace(t, s)})
}
