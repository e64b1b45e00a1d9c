package vm

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"strings"

	"banger"
	"banger/internal/config"
)

// plan is the row a Create asks for, before anything was touched. It has no
// image, kernel or address yet.
func plan(c Create, cfg config.Config, p Progress) (banger.VM, error) {
	d := cfg.VMDefaults
	spec := banger.Spec{
		Layout:    banger.Layout,
		VCPU:      or(c.VCPU, d.VCPU),
		MemoryMiB: or(c.MemoryMiB, d.MemoryMiB),
		DiskBytes: or(c.DiskBytes, d.DiskBytes),
		NAT:       d.NAT,
		Allow:     append(append([]string(nil), d.Allow...), c.Allow...),
		Publish:   c.Publish,
		Init:      or(c.Init, banger.InitAgent),
		Ephemeral: c.Ephemeral,
	}
	for _, f := range cfg.FileSync {
		spec.Synced = append(spec.Synced, f.Guest)
	}
	if c.NAT != nil {
		spec.NAT = *c.NAT
	}
	if err := cmp.Or(c.Check(), checkSpec(spec)); err != nil {
		return banger.VM{}, err
	}
	warnOfSpec(spec, p)
	return banger.VM{
		ID: banger.NewID(), Name: c.Name, State: banger.StateCreated, Spec: spec,
		Runtime: banger.Runtime{Creating: true},
	}, nil
}

func or[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

// mostVCPU is what the machine type takes.
const mostVCPU = 255

// Check refuses what no VM can be asked to be, whatever else is so.
func (c Create) Check() error {
	if c.Name != "" {
		if err := banger.ValidateVMName(c.Name); err != nil {
			return err
		}
	}
	return checkSpec(banger.Spec{
		VCPU: or(c.VCPU, 1), MemoryMiB: or(c.MemoryMiB, banger.MinMemoryMiB), DiskBytes: or(c.DiskBytes, banger.MinDisk),
		Allow: c.Allow, Publish: c.Publish, Init: or(c.Init, banger.InitAgent),
	})
}

// warnOfSpec tells of what is possible and seldom meant.
func warnOfSpec(s banger.Spec, p Progress) {
	if host := runtime.NumCPU(); s.VCPU > host {
		p.Warn(fmt.Sprintf("%d vCPUs are more than the host's %d CPUs", s.VCPU, host))
	}
}

func checkSpec(s banger.Spec) error {
	if s.VCPU < 1 || s.VCPU > mostVCPU {
		return banger.Errorf(banger.BadRequest, "bad number of vCPUs %d: it must be from 1 to %d", s.VCPU, mostVCPU).
			Hint("for example --vcpu 2")
	}
	if ram := config.HostRAM(); ram > 0 {
		if err := banger.ValidateMemory(s.MemoryMiB, ram/banger.MiB); err != nil {
			return err
		}
	}
	if err := banger.ValidateDiskSize(s.DiskBytes); err != nil {
		return err
	}
	switch s.Init {
	case banger.InitAgent, banger.InitSystemd:
	default:
		return banger.Errorf(banger.BadRequest, "bad init %q: it must be agent or systemd", s.Init)
	}
	if _, err := banger.ParsePublishes(s.Publish); err != nil {
		return err
	}
	return checkNetwork(s)
}

// checkName refuses a name that is taken before long work is done for
// nothing. What decides is the ledger.
func (m *Manager) checkName(ctx context.Context, name string) (taken func(string) bool, err error) {
	rows, err := m.Store.VMs(ctx)
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool, len(rows))
	for _, row := range rows {
		names[row.Name] = true
	}
	if name != "" && names[name] {
		return nil, banger.Errorf(banger.AlreadyExists, "cannot create VM %s: there is one of that name already", name).
			Hint("banger vm start %s", name).Hint("banger vm exec %s -- COMMAND", name)
	}
	return func(name string) bool { return names[name] }, nil
}

// checkDisk refuses a disk smaller than the image asks for.
func checkDisk(spec banger.Spec, image Image) error {
	if image.BuildSize == "" {
		return nil
	}
	least, err := banger.ParseSize(image.BuildSize)
	if err == nil && spec.DiskBytes < least {
		return banger.Errorf(banger.BadRequest, "bad disk size %s: VMs of the image %s need %s at least",
			banger.FormatSize(spec.DiskBytes), image.Name, image.BuildSize).Hint("--disk-size %s", image.BuildSize)
	}
	return nil
}

// cmdline is our part of the guest kernel's command line.
func cmdline(image Image, init string) string {
	words := "banger.image=" + identify(image)
	if init == banger.InitSystemd {
		words += " banger.init=" + init
	}
	if image.Seed != "" {
		words += " banger.seed=sha256:" + image.Seed
	}
	return words
}

// identify names an image with its content.
func identify(image Image) string {
	// The name goes into a command line: one of another hand may hold blanks.
	name := strings.Join(strings.Fields(image.Name), "_")
	return name + "@sha256:" + image.Digest
}
