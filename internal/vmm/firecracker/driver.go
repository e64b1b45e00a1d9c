// Package firecracker runs machines on Firecracker: the vmm.Driver, and where
// Firecracker is and whether it is fit.
//
// A machine's files reach Firecracker as descriptors it inherits, under the same numbers
// in every machine, so that a saved machine names no file of the one it was. What
// Firecracker insists on making by name, its sockets, is in a directory of the
// machine's own below the VM's, which goes with it. Its network card is a TAP in a
// network namespace that nobody else is in; see card.go.
//
// The package knows nothing of images, of VMs as users see them, or of what runs in a
// guest, but for the two words it puts on the kernel's command line: where the agent
// listens, and in which order the disks are, which have no serials here.
package firecracker

import (
	"context"
	"errors"
	"os"

	"banger"
	"banger/internal/vmm"
)

// Driver implements vmm.Driver. Its zero value is ready.
type Driver struct{}

// Name is "firecracker".
func (Driver) Name() string { return "firecracker" }

// Features of Firecracker as this driver uses it.
func (Driver) Features() vmm.Features {
	return vmm.Features{
		UncompressedKernel: true,
		Pause:              true,
		DiskGrowth:         true,
		Snapshots:          true,
		Accels:             []vmm.Accel{vmm.KVM},
	}
}

// maxVCPU is Firecracker's own.
const maxVCPU = 32

// check refuses what Firecracker does not have.
func check(cfg vmm.Config) error {
	switch {
	case cfg.Accel != vmm.KVM:
		return banger.Errorf(banger.BadRequest, "Firecracker has no acceleration but KVM, and not %q", cfg.Accel)
	case cfg.VCPU > maxVCPU:
		return banger.Errorf(banger.BadRequest, "Firecracker gives a machine %d vCPUs at most, and not %d", maxVCPU, cfg.VCPU)
	}
	for _, d := range cfg.Disks {
		if len(d.Layers) > 0 {
			return banger.Errorf(banger.BadRequest, "the disk %s has layers, which Firecracker knows nothing of", d.Serial)
		}
	}
	return nil
}

// Boot implements vmm.Driver.
func (Driver) Boot(ctx context.Context, cfg vmm.Config, out vmm.IO) (vmm.Machine, error) {
	m, err := boot(ctx, cfg, out)
	if err != nil {
		return nil, banger.Wrap(err, "cannot boot the machine")
	}
	return m, nil
}

func boot(ctx context.Context, cfg vmm.Config, out vmm.IO) (*machine, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if err := check(cfg); err != nil {
		return nil, err
	}
	if err := checkKernel(cfg.At(cfg.Kernel)); err != nil {
		return nil, err
	}
	m, err := launch(ctx, cfg, saved{}, out)
	if err != nil {
		return nil, err
	}
	if err := m.configure(ctx); err != nil {
		return nil, m.abandon(ctx, err)
	}
	close(m.up)
	return m, nil
}

// configure describes the machine to Firecracker and starts it.
func (m *machine) configure(ctx context.Context) error {
	for _, r := range description(m.cfg, m.home) {
		if err := m.api.do(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// abandon ends a machine that did not come up and says why.
func (m *machine) abandon(ctx context.Context, err error) error {
	ended := errors.Is(err, errNoAnswer) && m.hasEnded(ctx)
	if !ended {
		_ = m.process.Signal(os.Kill)
	}
	<-m.done
	_ = m.agent.Close()
	if m.cable != nil {
		_ = m.cable.Close()
	}
	var refused *fault
	switch {
	case ctx.Err() != nil:
		return banger.Errorf(banger.Cancelled, "%w", context.Cause(ctx))
	case errors.As(err, &refused):
		return banger.Errorf(refused.code(), "%w", err)
	case ended && m.exit.Message != "":
		return banger.Errorf(banger.Unavailable, "%s", m.exit.Message)
	case ended:
		return banger.Errorf(banger.Unavailable, "Firecracker ended with status %d %s", m.exit.Status, m.exit.Signal)
	}
	return err
}
