package qemu

import (
	"os"
	"path/filepath"
	"testing"

	"banger/internal/vmm"
	"banger/internal/vmm/vmmtest"
)

// mustFind skips where there is no QEMU to test.
func mustFind(t testing.TB) string {
	t.Helper()
	bin, _, err := Find("")
	if err != nil {
		t.Skip(err)
	}
	return bin
}

func TestConformanceUnderEmulation(t *testing.T) {
	cfg := vmmtest.GuestConfig(t, mustFind(t), vmm.TCG)
	vmmtest.Run(t, vmmtest.Harness{Driver: Driver{}, Config: cfg})
}

// verdictVariable names a file with what this test has found out about KVM, for
// the second processes of the suite.
const verdictVariable = "BANGER_TEST_KVM_VERDICT"

// TestConformanceUnderKVM is the same where the host has KVM that works. `make
// test-kvm` makes such a host.
func TestConformanceUnderKVM(t *testing.T) {
	if os.Getenv(verdictVariable) == "" {
		t.Setenv(verdictVariable, filepath.Join(t.TempDir(), "kvm.json"))
	}
	cfg := vmmtest.GuestConfig(t, mustFind(t), vmm.KVM)
	verdict, err := ProbeKVM(t.Context(), Probe{Binary: cfg.Binary, Kernel: cfg.Kernel, Cache: os.Getenv(verdictVariable)})
	if err != nil {
		t.Fatal(err)
	}
	if verdict.State != Usable {
		t.Skipf("KVM is %s: %s", verdict.State, verdict.Why)
	}
	vmmtest.Run(t, vmmtest.Harness{Driver: Driver{}, Config: cfg})
}
