package firecracker

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"banger/internal/vmm"
	"banger/internal/vmm/qemu"
	"banger/internal/vmm/vmmtest"
	"banger/internal/vmm/vmmtest/standin"
)

// TestMain lets this program be what the driver makes of it, see CardProgram, and what it
// runs in Firecracker's place.
func TestMain(m *testing.M) {
	if standin.Called() {
		os.Exit(standin.Main())
	}
	if len(os.Args) > 1 && os.Args[1] == CardProgram {
		if err := Card(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestConformanceUnderKVM is for a host where KVM works and Firecracker is.
func TestConformanceUnderKVM(t *testing.T) {
	if kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err != nil {
		t.Skipf("no KVM: %v", err)
	} else {
		kvm.Close()
	}
	found, err := Find("")
	if err != nil {
		t.Skipf("no Firecracker: %v", err)
	}
	t.Logf("Firecracker %s at %s", found.Version, found.Path)
	cfg := vmmtest.GuestConfig(t, found.Path, vmm.KVM)
	needKVM(t, cfg.Kernel)
	vmmtest.Run(t, vmmtest.Harness{Driver: Driver{}, Config: cfg})
}

// verdictVariable names a file with what this test has found out about KVM, for
// the second processes of the suite.
const verdictVariable = "BANGER_TEST_KVM_VERDICT"

// needKVM skips where KVM opens and does not work, which takes QEMU to find out.
func needKVM(t *testing.T, kernel string) {
	t.Helper()
	bin, _, err := qemu.Find("")
	if err != nil {
		return
	}
	if os.Getenv(verdictVariable) == "" {
		t.Setenv(verdictVariable, filepath.Join(t.TempDir(), "kvm.json"))
	}
	verdict, err := qemu.ProbeKVM(t.Context(), qemu.Probe{Binary: bin, Kernel: kernel, Cache: os.Getenv(verdictVariable)})
	if err != nil {
		t.Fatal(err)
	}
	if verdict.State != qemu.Usable {
		t.Skipf("KVM is %s: %s", verdict.State, verdict.Why)
	}
}
