package daemon

import (
	"context"
	"fmt"
	"os"
	"sync"

	"banger"
	"banger/internal/config"
	"banger/internal/kernel"
	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/firecracker"
	"banger/internal/vmm/qemu"
)

// chooser picks the VMM, once for each configuration of it, and looks at each kernel once.
type chooser struct {
	d    *daemon
	mu   sync.Mutex
	of   [7]string
	last vm.Machine

	unfit bool            // a Firecracker was found and cannot be used, which may be mended
	vsock map[string]bool // whether a kernel has one, by its digest
}

func (c *chooser) choose(ctx context.Context, conf config.Config, k banger.Kernel) (vm.Machine, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, err := c.machine(ctx, conf)
	if err != nil || m.Driver != (firecracker.Driver{}).Name() {
		return m, err
	}
	why := c.reaches(k)
	switch {
	case why == nil:
		return m, nil
	case conf.VMM == m.Driver:
		return vm.Machine{}, banger.Errorf(banger.CodeOf(why), "cannot use Firecracker as configured: %w", why).
			Hint("set vmm = \"qemu\" in %s", conf.File)
	}
	c.d.log.Info("Firecracker is not used", "why", why)
	return c.qemu(ctx, conf)
}

// reaches says why Firecracker could not reach the agent in a guest of this kernel.
func (c *chooser) reaches(k banger.Kernel) error {
	has, known := c.vsock[k.Digest]
	if !known {
		var err error
		if has, err = kernel.HasVsock(k); err != nil {
			return err
		}
		if c.vsock == nil {
			c.vsock = map[string]bool{}
		}
		c.vsock[k.Digest] = has
	}
	if !has {
		return banger.Errorf(banger.BadRequest, "the kernel %s has no vsock, by which alone Firecracker reaches a guest", k.Name)
	}
	return nil
}

// machine picks one for a configuration, unless that was done before.
func (c *chooser) machine(ctx context.Context, conf config.Config) (vm.Machine, error) {
	of := c.settings(conf)
	if c.last.Binary != "" && c.of == of {
		return c.last, nil
	}
	c.unfit = false
	machine, err := c.pick(ctx, conf)
	if err == nil && !c.unfit {
		of[6] = stamp(machine.Binary)
		c.of, c.last = of, machine
	}
	return machine, err
}

// settings are what a machine was picked by, and by which program it was.
func (c *chooser) settings(conf config.Config) [7]string {
	return [7]string{conf.VMM, conf.FirecrackerBin, conf.QEMUBin, conf.Accel, conf.DefaultKernel,
		stamp(firecracker.Where(conf.FirecrackerBin)), stamp(c.last.Binary)}
}

// stamp tells a program from what it may be replaced by.
func stamp(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return fmt.Sprint(path, " ", info.ModTime().UnixNano(), " ", info.Size())
}

// pick picks anew. By itself it takes Firecracker where that is fit and KVM usable, else
// QEMU.
func (c *chooser) pick(ctx context.Context, conf config.Config) (vm.Machine, error) {
	switch {
	case conf.VMM == "firecracker":
		m, err := c.firecracker(ctx, conf)
		if err != nil {
			err = banger.Errorf(banger.CodeOf(err), "cannot use Firecracker as configured: %w", err).
				Hint("set vmm = \"qemu\" in %s", conf.File)
		}
		return m, err
	case conf.VMM == "qemu" || conf.Accel == string(vmm.TCG):
		return c.qemu(ctx, conf)
	}
	m, err := c.firecracker(ctx, conf)
	if err == nil {
		return m, nil
	}
	if banger.CodeOf(err) != banger.NotFound {
		c.d.log.Info("Firecracker is not used", "why", err)
	}
	return c.qemu(ctx, conf)
}

func (c *chooser) firecracker(ctx context.Context, conf config.Config) (_ vm.Machine, err error) {
	defer func() { c.unfit = err != nil && banger.CodeOf(err) != banger.NotFound }()
	found, err := firecracker.Find(conf.FirecrackerBin)
	if err != nil {
		return vm.Machine{}, err
	}
	if conf.Accel == string(vmm.TCG) {
		return vm.Machine{}, banger.Errorf(banger.BadRequest, "it does not emulate, and the configuration says accel = %q", conf.Accel).
			Hint("set accel = \"auto\" in %s", conf.File)
	}
	if err := firecracker.CanMakeCards(c.d.self); err != nil {
		return vm.Machine{}, err
	}
	if err := c.tryKVM(ctx, conf); err != nil {
		return vm.Machine{}, err
	}
	if found.Warning != "" {
		c.d.log.Warn(found.Warning)
	}
	d := firecracker.Driver{}
	return vm.Machine{Driver: d.Name(), Binary: found.Path, Accel: vmm.KVM, Features: d.Features()}, nil
}

// tryKVM says why KVM cannot be used. The trial takes QEMU; without one whoever has
// Firecracker, and may open the device, is believed to have it for a reason.
func (c *chooser) tryKVM(ctx context.Context, conf config.Config) error {
	if err := opens(kvmDevice); err != nil {
		return banger.Errorf(banger.Unavailable, "KVM cannot be used: %w", err).Hint("banger doctor")
	}
	p, err := c.probe(conf)
	verdict, known := p.Known()
	if !known && err == nil {
		if verdict, err = qemu.ProbeKVM(ctx, p); err != nil {
			return err
		}
		known = true
	}
	if known && verdict.State != qemu.Usable {
		return banger.Errorf(banger.Unavailable, "KVM is %s: %s", verdict.State, verdict.Why).
			Hint("banger doctor")
	}
	return nil
}

const kvmDevice = "/dev/kvm"

func opens(device string) error {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err == nil {
		_ = f.Close()
	}
	return err
}

// probe is what KVM is tried with here.
func (c *chooser) probe(conf config.Config) (qemu.Probe, error) {
	bin, _, err := qemu.Find(conf.QEMUBin)
	p := qemu.Probe{Binary: bin, Cache: c.d.dirs.AccelVerdict()}
	if k, err := c.d.kernels.Get(conf.DefaultKernel); err == nil {
		p.Kernel = k.VmlinuxPath
	}
	return p, err
}

func (c *chooser) qemu(ctx context.Context, conf config.Config) (vm.Machine, error) {
	p, err := c.probe(conf)
	if err != nil {
		return vm.Machine{}, err
	}
	chosen, err := qemu.Choose(ctx, conf.Accel, p)
	if err != nil {
		return vm.Machine{}, err
	}
	d := qemu.Driver{}
	return vm.Machine{Driver: d.Name(), Binary: p.Binary, Accel: chosen.Accel, Features: d.Features()}, nil
}
