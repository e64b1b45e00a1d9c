package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"banger"
)

// earlyRequired is what must be in the kernel or loaded before the agent can
// find its disks, assemble the root and speak: QEMU's microvm and Firecracker
// both show their devices by virtio-mmio.
var earlyRequired = []string{"virtio_mmio", "virtio_blk", "ext4", "overlay"}

// earlyWanted is loaded too where the kernel has it: either of the two ways
// the agent link goes, the network card and the entropy source. They are
// small, and all devices are then there before the modules disk is mounted.
var earlyWanted = []string{
	"virtio_console", "vmw_vsock_virtio_transport", "virtio_net", "virtio_rng",
}

// earlyModules lists what the initramfs loads, in order.
func (t *moduleTree) earlyModules() ([]module, error) {
	var out []module
	seen := map[string]bool{}
	add := func(name string) error {
		chain, err := t.loadOrder(name)
		if err != nil {
			return err
		}
		for _, m := range chain {
			if !seen[m.name] {
				seen[m.name] = true
				out = append(out, m)
			}
		}
		return nil
	}
	for _, name := range earlyRequired {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	links := 0
	for _, name := range earlyWanted {
		err := add(name)
		if err == nil && (name == "virtio_console" || name == "vmw_vsock_virtio_transport") {
			links++
		}
	}
	if links == 0 {
		return nil, errors.New("the kernel has neither virtio_console nor vsock, so nothing could speak to the guest")
	}
	return out, nil
}

// writeEarly puts the early modules into dir as NNN-name.ko, and their order,
// one file name a line, into dir/order.
func writeEarly(ctx context.Context, modulesDir string, tree *moduleTree, dir string) error {
	early, err := tree.earlyModules()
	if err != nil {
		return banger.Errorf(banger.BadRequest, "cannot boot from the modules in %s: %w", modulesDir, err)
	}
	place := map[string]string{}
	var order strings.Builder
	for i, m := range early {
		name := fmt.Sprintf("%03d-%s", i, path.Base(m.path))
		place[m.path] = name
		fmt.Fprintln(&order, name)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	left := int64(maxEarly)
	err = eachModule(modulesDir, func(plain, file string) error {
		name, ok := place[plain]
		if !ok {
			return ctx.Err()
		}
		f, err := openModule(ctx, file, dir)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if left -= info.Size(); left < 0 {
			return banger.Errorf(banger.BadRequest, "cannot boot from the modules in %s: those that are needed first have more than %d bytes", modulesDir, maxEarly)
		}
		return writeAll(filepath.Join(dir, name), f)
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "order"), []byte(order.String()), 0o644)
}
