package qemu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/vmm"
)

func TestMachineOfAnotherBuildIsRefused(t *testing.T) {
	cfg := vmm.Config{Dir: t.TempDir(), Binary: "/bin/true", Accel: vmm.TCG, VCPU: 1, MemoryMiB: 1}
	memory, err := vmm.NewMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	if err := memory.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	state := stateOf("7.2.22", cfg)
	state.Build--
	text, err := state.Encode()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cfg.Dir, "state")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Driver{}.Restore(t.Context(), cfg, vmm.Source{Memory: memory, State: path}, vmm.IO{})
	if banger.CodeOf(err) != banger.BadRequest || !strings.Contains(err.Error(), "another version of banger") {
		t.Errorf("got %v", err)
	}
}
