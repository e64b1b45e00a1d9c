package shim

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"banger"
	"banger/internal/vmm"
)

// diskSerial is the serial of a VM's writable disk.
const diskSerial = "disk"

func isDisk(d vmm.Disk) bool { return d.Serial == diskSerial }

// hasDisk says whether the machine has a disk of its own.
func (s *supervisor) hasDisk() bool { return slices.ContainsFunc(s.launch.Machine.Disks, isDisk) }

// config is the machine with its disk as it is now: layers may have come since
// it was launched. A driver that knows none gets one file, for which all that
// is in them may have to be copied.
func (s *supervisor) config(ctx context.Context) (vmm.Config, error) {
	cfg := s.launch.Machine
	i := slices.IndexFunc(cfg.Disks, isDisk)
	if i < 0 {
		return cfg, nil
	}
	_, overlays, err := s.layers.Of(string(s.dir))
	if err != nil {
		return cfg, err
	}
	if len(overlays) > 0 && !s.driver.Features().Layers {
		return cfg, s.layers.Flatten(ctx, string(s.dir))
	}
	cfg.Disks = slices.Clone(cfg.Disks)
	cfg.Disks[i].Layers = overlays
	return cfg, nil
}

// takeDisk makes a directory hold a copy of the disk of a machine that stands
// still.
func (s *supervisor) takeDisk(h *hold, to string) error {
	if !s.hasDisk() {
		return nil
	}
	if !s.driver.Features().Layers {
		name := filepath.Base(s.dir.Disk())
		return banger.Wrap(copyFile(filepath.Join(string(s.dir), name), filepath.Join(to, name)), "cannot copy its disk")
	}
	return s.layers.Take(h.ctx, string(s.dir), to, false, func(name string) error {
		return h.machine.FreezeDisk(h.ctx, diskSerial, name)
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(vmm.CopySparse(out, in), out.Close())
}

// diskTop is the file of the disk that takes the writes; "" without a disk.
func (s *supervisor) diskTop() (string, error) {
	if !s.hasDisk() {
		return "", nil
	}
	base, overlays, err := s.layers.Of(string(s.dir))
	if n := len(overlays); n > 0 {
		base = overlays[n-1]
	}
	return filepath.Join(string(s.dir), base), err
}

// syncDisk has the host's disk hold what the guest wrote.
func (s *supervisor) syncDisk() error {
	path, err := s.diskTop()
	if err != nil || path == "" {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
