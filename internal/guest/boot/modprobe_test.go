package boot

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func modulesDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"modules.dep": "kernel/a/virtio-ring.ko:\n" +
			"kernel/a/virtio.ko: kernel/a/virtio-ring.ko\n" +
			"kernel/net/tun.ko: kernel/a/virtio.ko kernel/a/virtio-ring.ko\n" +
			"kernel/net/other.ko:\n",
		"modules.alias": "# comment\nalias char_major_10_200 tun\nalias devname:net/tun tun\n" +
			"alias net_pf_16_proto_* other\nalias fs_xyz nowhere\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestModulesAreResolvedInTheOrderOfDependency(t *testing.T) {
	dir := modulesDir(t)
	tun := []string{"kernel/a/virtio-ring.ko", "kernel/a/virtio.ko", "kernel/net/tun.ko"}
	for name, want := range map[string][]string{
		"tun":                tun,
		"char-major-10-200":  tun,
		"devname:net/tun":    tun,
		"virtio_ring":        tun[:1],
		"virtio-ring":        tun[:1],
		"net-pf-16-proto-12": {"kernel/net/other.ko"},
	} {
		if got, err := resolveModule(dir, name); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %v, %v", name, got, err)
		}
	}
	for _, name := range []string{"no-such", "", "fs-xyz", "../tun"} {
		if got, err := resolveModule(dir, name); err == nil {
			t.Errorf("%q is %v", name, got)
		}
	}
}

func TestMountPointsAreUnescaped(t *testing.T) {
	table := "21 1 0:20 / / rw - overlay image rw\n22 21 7:0 / /mnt/with\\040blank rw - ext4 /dev/loop0 rw\n"
	if got := mountPoints(table); !reflect.DeepEqual(got, []string{"/", "/mnt/with blank"}) {
		t.Fatalf("got %q", got)
	}
}
