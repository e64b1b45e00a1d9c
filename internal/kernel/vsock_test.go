package kernel

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
)

func TestVsockIsAModuleOrBuiltIn(t *testing.T) {
	long := strings.Repeat("x", 1<<20-10)
	for _, c := range []struct {
		what, order, vmlinux string
		has                  bool
	}{
		{"a module", "000-virtio.ko\n008-vmw_vsock_virtio_transport.ko\n", "", true},
		{"only what it depends on", "007-vmw_vsock_virtio_transport_common.ko\n", "", false},
		{"built in", "000-virtio.ko\n", "\x00vmw_vsock_virtio_transport\x00", true},
		{"built in, where two reads meet", "", long + vsockDriver + long, true},
		{"neither", "000-virtio.ko\n", long + "vmw_vsock_virtio" + long, false},
	} {
		dir := t.TempDir()
		k := banger.Kernel{Name: "k", Dir: dir, VmlinuxPath: filepath.Join(dir, vmlinuxFile)}
		if err := os.Mkdir(filepath.Join(dir, earlyDir), 0o700); err != nil {
			t.Fatal(err)
		}
		for path, text := range map[string]string{filepath.Join(dir, earlyDir, "order"): c.order, k.VmlinuxPath: c.vmlinux} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if has, err := HasVsock(k); err != nil || has != c.has {
			t.Errorf("%s: %v, want %v (%v)", c.what, has, c.has, err)
		}
	}
	if _, err := HasVsock(banger.Kernel{Dir: t.TempDir()}); err == nil {
		t.Error("a kernel that is not there")
	}
}
