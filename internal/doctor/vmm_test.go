package doctor

import (
	"os"
	"path/filepath"
	"testing"
)

// TestMissingQEMUFailsWhereNothingDoesWithout has a Firecracker, and a host that shows KVM and lets cards
// be made.
func TestMissingQEMUFailsWhereNothingDoesWithout(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	e := newExam(t)
	want(t, e.only(t, e.vmm), Fail, "qemu-system-x86")

	fire := filepath.Join(t.TempDir(), "firecracker")
	if err := os.WriteFile(fire, []byte("#!/bin/sh\necho Firecracker v1.16.1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, device := range []string{"/dev/kvm", "/dev/net/tun"} {
		f, err := os.OpenFile(device, os.O_RDWR, 0)
		if err != nil {
			t.Skip(err)
		}
		f.Close()
	}
	for _, c := range []struct {
		vmm, accel string
		verdict    Verdict
		words      string
	}{
		{"auto", "auto", Warn, "Firecracker does without"},
		{"firecracker", "kvm", Warn, "qemu-system-x86"},
		{"qemu", "auto", Fail, "qemu-system-x86"},
		{"auto", "tcg", Fail, "qemu-system-x86"},
	} {
		e := newExam(t)
		e.config.FirecrackerBin, e.config.VMM, e.config.Accel = fire, c.vmm, c.accel
		want(t, e.only(t, e.vmm), c.verdict, c.words)
	}
}
