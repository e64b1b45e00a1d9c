package qemu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger"
	"banger/internal/vmm"
	"banger/internal/vmm/child"
)

// freezing is a machine with a disk, whose QEMU refuses the command of that
// name, and the commands it was given.
func freezing(t *testing.T, refused string) (m *machine, given *[]string) {
	t.Helper()
	given = &[]string{}
	mon, _ := fakeMonitor(t, func(name string, id int) string {
		*given = append(*given, name)
		answer := map[string]string{
			"add-fd":                  `{"fdset-id": 0}`,
			"query-named-block-nodes": `[]`,
			"query-fdsets":            `[{"fdset-id": 7, "fds": [{"fd": 5, "opaque": "writer"}]}]`,
		}[name]
		switch {
		case name == refused:
			return fmt.Sprintf(`{"error": {"desc": "no"}, "id": %d}`, id)
		case answer == "":
			return ok(id)
		}
		return fmt.Sprintf(`{"return": %s, "id": %d}`, answer, id)
	})
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	process, err := child.Start(child.Spec{Path: "/bin/sleep", Args: []string{"60"}, Dir: "/", Files: []*os.File{null, null, null}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { process.Signal(os.Kill); <-process.Done() })
	m = &machine{
		cfg: vmm.Config{Dir: t.TempDir()}, process: process, monitor: mon, done: make(chan struct{}),
		tops: map[string]top{"disk": {path: "disk.ext4", set: 7}},
	}
	go func() { <-process.Done(); close(m.done) }()
	if err := os.WriteFile(filepath.Join(m.cfg.Dir, "overlay"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return m, given
}

// An overlay whose freeze failed is removed unless the machine has ended, so
// that a machine which writes to it must not go on after an error.
func TestMachineThatKeepsAFrozenFileIsEnded(t *testing.T) {
	m, _ := freezing(t, "remove-fd")
	if err := m.FreezeDisk(t.Context(), "disk", "overlay"); banger.CodeOf(err) != banger.NotRunning {
		t.Errorf("got %v", err)
	}
	select {
	case <-m.done:
	default:
		t.Error("it runs on")
	}
}

func TestMachineThatSaysTooMuchInAFreezeIsEnded(t *testing.T) {
	m, _ := freezing(t, "")
	m.monitor, _ = fakeMonitor(t, func(string, int) string { return strings.Repeat(" ", maxMessage+1) })
	if err := m.FreezeDisk(t.Context(), "disk", "overlay"); banger.CodeOf(err) != banger.NotRunning || !errors.Is(err, errTooLong) {
		t.Errorf("got %v", err)
	}
}

func TestRefusedFreezeTakesTheDescriptorsBack(t *testing.T) {
	m, given := freezing(t, "blockdev-snapshot")
	if err := m.FreezeDisk(t.Context(), "disk", "overlay"); err == nil || banger.CodeOf(err) == banger.NotRunning {
		t.Errorf("got %v", err)
	}
	if !slices.Equal((*given)[len(*given)-2:], []string{"blockdev-del", "remove-fd"}) || m.tops["disk"].path != "disk.ext4" {
		t.Errorf("it did %q and writes to %+v", *given, m.tops["disk"])
	}
}
