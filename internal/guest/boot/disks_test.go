package boot

import (
	"os"
	"path/filepath"
	"testing"
)

// TestDisksAreToldByTheirPlace has a kernel that came to the disks in another order than theirs.
func TestDisksAreToldByTheirPlace(t *testing.T) {
	sys := t.TempDir()
	plug := func(place, name string) {
		t.Helper()
		device := filepath.Join(sys, "devices/platform", place, "block", name)
		if err := os.MkdirAll(device, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(sys, "block"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(device, filepath.Join(sys, "block", name)); err != nil {
			t.Fatal(err)
		}
	}
	serials := []string{"root", "modules", "disk"}
	blocks := filepath.Join(sys, "block")
	plug("LNRO0005:02/virtio0", "vda")
	plug("LNRO0005:00/virtio10", "vdb")
	if dev, ok := diskInOrder(blocks, serials, "root"); ok {
		t.Errorf("with a disk missing it takes %s for root", dev)
	}
	plug("LNRO0005:01/virtio2", "vdc")
	for serial, want := range map[string]string{"root": "vdb", "modules": "vdc", "disk": "vda"} {
		if dev, ok := diskInOrder(blocks, serials, serial); !ok || dev != want {
			t.Errorf("%s is %s, want %s", serial, dev, want)
		}
	}
	if dev, ok := diskInOrder(blocks, serials, "seed"); ok {
		t.Errorf("a disk that nobody has is %s", dev)
	}
	plug("LNRO0005:03/virtio3", "vdd")
	if dev, ok := diskInOrder(blocks, serials, "root"); ok {
		t.Errorf("with a disk too many it takes %s for root", dev)
	}
}
