package vmm

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"banger"
)

// maxSerial is what virtio-blk has room for.
const maxSerial = 20

// At is a path of the description as this process sees it.
func (c Config) At(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(c.Dir, path)
}

// Check refuses a description no driver can boot: every driver calls it first,
// so that all fail alike. What it finds is what a VMM would report worse.
func (c Config) Check() error {
	if err := c.CheckRestore(); err != nil {
		return err
	}
	if err := c.present("kernel", c.Kernel); err != nil || c.Initrd == "" {
		return err
	}
	return c.present("initrd", c.Initrd)
}

// CheckRestore is Check for a machine that is restored: it needs no kernel.
func (c Config) CheckRestore() error {
	if c.VCPU < 1 || c.MemoryMiB < 1 {
		return banger.Errorf(banger.BadRequest, "a machine needs at least one vCPU and 1 MiB of memory, not %d and %d", c.VCPU, c.MemoryMiB)
	}
	for _, f := range []struct{ what, path string }{{"directory", c.Dir}, {"VMM", c.Binary}} {
		if err := c.present(f.what, f.path); err != nil {
			return err
		}
	}
	if err := c.checkNIC(); err != nil {
		return err
	}
	return c.checkDisks()
}

// The smallest and the largest packet that a network of IPv4 carries.
const minMTU, maxMTU = 68, 65535

func (c Config) checkNIC() error {
	if c.NIC == nil {
		return nil
	}
	mac, err := net.ParseMAC(c.NIC.MAC)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 || c.NIC.MTU < minMTU || c.NIC.MTU > maxMTU {
		return banger.Errorf(banger.BadRequest, "bad network card: %q of MTU %d", c.NIC.MAC, c.NIC.MTU)
	}
	return nil
}

func (c Config) checkDisks() error {
	seen := map[string]bool{}
	for _, d := range c.Disks {
		if !goodSerial(d.Serial) || seen[d.Serial] {
			return banger.Errorf(banger.BadRequest,
				"bad disk serial %q: it must be unique and 1 to %d letters, digits and hyphens", d.Serial, maxSerial)
		}
		seen[d.Serial] = true
		for _, path := range append([]string{d.Path}, d.Layers...) {
			if err := c.present("disk "+d.Serial, path); err != nil {
				return err
			}
		}
	}
	return nil
}

func goodSerial(s string) bool {
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
	}
	return s != "" && len(s) <= maxSerial && !strings.ContainsFunc(s, odd)
}

func (c Config) present(what, path string) error {
	if path == "" {
		return banger.Errorf(banger.BadRequest, "no %s is given", what)
	}
	_, err := os.Stat(c.At(path))
	if errors.Is(err, fs.ErrNotExist) {
		return banger.Errorf(banger.NotFound, "the %s is missing: %w", what, err)
	}
	return banger.Wrap(err, "cannot look at the %s", what)
}
