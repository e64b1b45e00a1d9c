package qemu

import (
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
