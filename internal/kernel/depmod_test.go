package kernel

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

func testTree(t *testing.T) *moduleTree {
	t.Helper()
	var modules []module
	for path, info := range bootableModules {
		m, err := parseModule(path, bytes.NewReader(testModule(t, info...)))
		if err != nil {
			t.Fatal(err)
		}
		modules = append(modules, m)
	}
	return newModuleTree(modules, "kernel/drivers/virtio/virtio.ko\n", "kernel/fs/ext4/ext4.ko\n")
}

func namesOf(modules []module) string {
	var names []string
	for _, m := range modules {
		names = append(names, m.name)
	}
	return strings.Join(names, " ")
}

func TestLoadOrderPutsDependenciesFirst(t *testing.T) {
	tree := testTree(t)
	for name, want := range map[string]string{
		"virtio_blk":     "virtio_ring virtio virtio_blk",
		"virtio_ring":    "virtio_ring",
		"nft_[a-b]_test": "x_tables nft_[a-b]_test",
		"ext4":           "", // built in
	} {
		got, err := tree.loadOrder(name)
		if err != nil || namesOf(got) != want {
			t.Errorf("%s: %q, %v", name, namesOf(got), err)
		}
	}
}

func TestLoadOrderRefusesMissingModulesAndCircles(t *testing.T) {
	tree := newModuleTree([]module{
		{path: "a.ko", name: "a", depends: []string{"b"}},
		{path: "b.ko", name: "b", depends: []string{"a"}},
		{path: "c.ko", name: "c", depends: []string{"gone"}},
	}, "", "")
	for name, want := range map[string]string{"a": "depends on itself", "c": "no module gone"} {
		if _, err := tree.loadOrder(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestEarlyModulesAreWhatTheRootNeedsAndWhatIsThere(t *testing.T) {
	early, err := testTree(t).earlyModules()
	if want := "virtio_ring virtio virtio_mmio virtio_blk overlay virtio_console virtio_rng"; err != nil || namesOf(early) != want {
		t.Errorf("%q, %v", namesOf(early), err)
	}
}

func TestKernelWithoutAWayToTheAgentIsRefused(t *testing.T) {
	tree := testTree(t)
	delete(tree.byName, "virtio_console")
	if _, err := tree.earlyModules(); err == nil || !strings.Contains(err.Error(), "vsock") {
		t.Errorf("error %v", err)
	}
	delete(tree.byName, "overlay")
	if _, err := tree.earlyModules(); err == nil || !strings.Contains(err.Error(), "no module overlay") {
		t.Errorf("error %v", err)
	}
}

func TestAModuleThatIsBuiltInTooNeedsNothing(t *testing.T) {
	tree := newModuleTree([]module{
		{path: "a.ko", name: "a", depends: []string{"b"}}, {path: "b.ko", name: "b"},
	}, "", "kernel/a.ko\n")
	files, err := tree.indexFiles(t.Context())
	if want := "a.ko:\nb.ko:\n"; err != nil || string(files["modules.dep"]) != want {
		t.Errorf("%q, %v", files["modules.dep"], err)
	}
}

func TestIndexFilesSayWhatIsWhere(t *testing.T) {
	files, err := testTree(t).indexFiles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"modules.dep":     "kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko\n",
		"modules.alias":   "alias nft_[a-z]_x nft_[a-b]_test\n",
		"modules.softdep": "softdep x_tables pre: virtio-blk\n",
	} {
		if !strings.Contains(string(files[name]), want) {
			t.Errorf("no %q in %s:\n%s", want, name, files[name])
		}
	}
	first, _, _ := strings.Cut(string(files["modules.dep"]), ":")
	if first != "kernel/drivers/virtio/virtio.ko" {
		t.Errorf("modules.order does not lead: %s comes first", first)
	}
	dep := lookup(files["modules.dep.bin"], "virtio_blk")
	if len(dep) != 1 || !strings.HasPrefix(dep[0], "kernel/drivers/block/virtio_blk.ko: ") {
		t.Errorf("modules.dep.bin holds %q", dep)
	}
	if got := lookup(files["modules.builtin.bin"], "ext4"); len(got) != 1 {
		t.Errorf("modules.builtin.bin holds %q for ext4", got)
	}
}

func TestIndexFindsEveryKeyAndNoOther(t *testing.T) {
	var x index
	keys := []string{"", "a", "ab", "abc", "abd", "b", "bcdef", "bcdxf", "pci:v*", "~"}
	for i, key := range keys {
		x.add(key, "value of "+key, i)
	}
	x.add("abc", "second", 99)
	x.add("abc", "first", 1)
	x.add("naïve", "never", 0)
	b := x.bytes()
	for _, key := range keys {
		if got := lookup(b, key); !slices.Contains(got, "value of "+key) {
			t.Errorf("%q gives %q", key, got)
		}
	}
	if got, want := lookup(b, "abc"), []string{"first", "value of abc", "second"}; !slices.Equal(got, want) {
		t.Errorf("values in the order %q", got)
	}
	for _, key := range []string{"c", "abcd", "bcd", "na", "naïve"} {
		if got := lookup(b, key); got != nil {
			t.Errorf("%q gives %q", key, got)
		}
	}
}

// lookup searches an index as kmod does.
func lookup(b []byte, key string) []string {
	offset := binary.BigEndian.Uint32(b[8:])
	for offset != 0 {
		node := b[offset&0x0fffffff:]
		if offset&indexHasPrefix != 0 {
			prefix, _, _ := strings.Cut(string(node), "\x00")
			if !strings.HasPrefix(key, prefix) {
				return nil
			}
			key, node = key[len(prefix):], node[len(prefix)+1:]
		}
		var first, last byte
		children := node
		if offset&indexHasChildren != 0 {
			first, last = node[0], node[1]
			children = node[2:]
			node = children[4*(int(last)-int(first)+1):]
		}
		if key == "" {
			return valuesOf(node, offset&indexHasValues != 0)
		}
		if offset&indexHasChildren == 0 || key[0] < first || key[0] > last {
			return nil
		}
		offset = binary.BigEndian.Uint32(children[4*(key[0]-first):])
		key = key[1:]
	}
	return nil
}

func valuesOf(node []byte, has bool) []string {
	if !has {
		return nil
	}
	var values []string
	n := binary.BigEndian.Uint32(node)
	node = node[4:]
	for range n {
		value, _, _ := strings.Cut(string(node[4:]), "\x00")
		values = append(values, value)
		node = node[4+len(value)+1:]
	}
	return values
}
