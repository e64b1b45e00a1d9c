// Package qemu runs machines on QEMU's microvm: the vmm.Driver, the choice
// between hardware virtualisation and emulation by trial, and where QEMU is.
//
// Everything a machine talks through is a socket pair whose far end QEMU
// inherits, and its disks are open descriptors: no path length matters,
// nothing is planted in the file system, nothing has to be cleaned up. The
// package knows nothing of images, of VMs as users see them, or of what runs
// in a guest.
package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"

	"banger"
	"banger/internal/vmm"
	"banger/internal/vmm/child"
)

// Driver implements vmm.Driver. Its zero value is ready.
type Driver struct{ ownNetwork bool }

// Measured is a driver to measure against: the network cards of its machines lead
// into QEMU's own network in user space, and so to the host's, and no cable does.
// No VM of anybody's runs on it.
func Measured() Driver { return Driver{ownNetwork: true} }

// Name is "qemu".
func (Driver) Name() string { return "qemu" }

// Features of QEMU as this driver uses it.
func (Driver) Features() vmm.Features {
	return vmm.Features{
		UncompressedKernel: true,
		Pause:              true,
		DiskGrowth:         true,
		Snapshots:          true,
		Layers:             true,
		Halts:              true,
		Accels:             []vmm.Accel{vmm.KVM, vmm.TCG},
	}
}

// Boot implements vmm.Driver.
func (d Driver) Boot(ctx context.Context, cfg vmm.Config, out vmm.IO) (vmm.Machine, error) {
	m, err := boot(ctx, cfg, d, out)
	if err != nil {
		return nil, banger.Wrap(err, "cannot boot the machine")
	}
	return m, nil
}

func boot(ctx context.Context, cfg vmm.Config, d Driver, out vmm.IO) (*machine, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if err := checkKernel(cfg.At(cfg.Kernel)); err != nil {
		return nil, err
	}
	clock, err := clockArgs(cfg.Accel)
	if err != nil {
		return nil, err
	}
	w, err := openWires(cfg)
	if err != nil {
		return nil, err
	}
	args := arguments(cfg, clock)
	if d.ownNetwork {
		args = withOwnNetwork(args)
	}
	m, err := launch(cfg, args, d, w, out)
	if err != nil {
		return nil, err
	}
	if err := m.run(ctx); err != nil {
		return nil, m.abandon(ctx, err)
	}
	return m, nil
}

// launch starts a QEMU that waits for its monitor's orders.
func launch(cfg vmm.Config, args []string, d Driver, w *wires, out vmm.IO) (*machine, error) {
	process, err := start(child.Spec{
		Path:       cfg.Binary,
		Args:       args,
		Dir:        cfg.Dir,
		Files:      w.far,
		Namespaces: d.namespaces(),
		Access:     d.access(cfg, w.base),
	})
	w.closeFar() // or its end would never show
	if err != nil {
		w.closeNear()
		return nil, startError(cfg.Binary, err)
	}
	return newMachine(cfg, process, w, out), nil
}

func startError(binary string, err error) error {
	if errors.Is(err, os.ErrPermission) {
		return banger.Errorf(banger.Unavailable, "cannot run %s: %w", binary, err)
	}
	return fmt.Errorf("cannot run %s: %w", binary, err)
}

// run takes a machine that waits before its first instruction to the point
// where its vCPUs run. Events are sent only from capability negotiation on:
// a guest that ends sooner would end without a reason.
func (m *machine) run(ctx context.Context) error {
	if err := m.greet(ctx); err != nil {
		return err
	}
	return m.monitor.execute(ctx, "cont", nil, nil)
}

// greet waits for QEMU to take orders.
func (m *machine) greet(ctx context.Context) error {
	err := m.monitor.handshake(ctx)
	if err == nil && m.up != nil {
		m.up()
	}
	return err
}

// abandon ends a machine that did not come up and says why.
func (m *machine) abandon(ctx context.Context, err error) error {
	ended := errors.Is(err, errMonitorClosed)
	if !ended {
		m.process.Signal(os.Kill)
	}
	<-m.done
	m.agent.Close()
	if m.cable != nil {
		m.cable.Close()
	}
	switch {
	case ctx.Err() != nil:
		return banger.Errorf(banger.Cancelled, "%w", context.Cause(ctx))
	case ended && m.exit.Message != "":
		return banger.Errorf(banger.Unavailable, "%s", m.exit.Message)
	case ended:
		return banger.Errorf(banger.Unavailable, "QEMU ended with status %d %s", m.exit.Status, m.exit.Signal)
	}
	return err
}
