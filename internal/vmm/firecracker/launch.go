package firecracker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/vmm"
	"banger/internal/vmm/child"
)

// namespaces are what Firecracker needs nothing of: see the driver of QEMU, which has the
// same.
const namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNS

// launch starts a Firecracker and waits until it takes orders.
func launch(ctx context.Context, cfg vmm.Config, from saved, out vmm.IO) (*machine, error) {
	if _, err := exec.LookPath(cfg.At(cfg.Binary)); err != nil {
		return nil, banger.Errorf(fileCode(err), "cannot run %s: %w", cfg.Binary, err)
	}
	if ctx.Err() != nil {
		return nil, banger.Errorf(banger.Cancelled, "%w", context.Cause(ctx))
	}
	h, err := openHome(cfg)
	if err != nil {
		return nil, banger.Wrap(err, "cannot make a directory for the machine's sockets")
	}
	m, err := launchIn(h, cfg, from, out)
	if err != nil {
		return nil, errors.Join(err, h.close())
	}
	if err := m.greet(ctx, out.Up); err != nil {
		return nil, m.abandon(ctx, err)
	}
	return m, nil
}

func launchIn(h *home, cfg vmm.Config, from saved, out vmm.IO) (*machine, error) {
	w, err := openWires(cfg, from)
	if err != nil {
		return nil, err
	}
	process, plug, err := start(cfg, h, w.far)
	w.closeFar() // or its end would never show
	if err != nil {
		w.closeNear()
		return nil, err
	}
	m, err := newMachine(cfg, process, h, w, plug, out)
	if err != nil {
		_ = process.Signal(os.Kill)
		<-process.Done()
		w.closeNear()
		if plug != nil {
			_ = plug.Close()
		}
		return nil, err
	}
	return m, nil
}

// greet waits for Firecracker to take orders, and for the card's cable.
func (m *machine) greet(ctx context.Context, up func()) error {
	if err := m.plugIn(ctx); err != nil {
		return err
	}
	who, err := m.api.await(ctx, m.process.Done())
	if err != nil {
		return err
	}
	m.version = who.Version
	if up != nil {
		up()
	}
	return nil
}

// start starts Firecracker in namespaces of its own, or, where the host does not let us make
// them and there is no card, without. The socket is the one on which the cable comes.
func start(cfg vmm.Config, h *home, files []*os.File) (*child.Child, *net.UnixConn, error) {
	spec := child.Spec{Path: cfg.Binary, Args: arguments(h), Dir: cfg.Dir, Files: files, Namespaces: namespaces}
	if cfg.NIC != nil {
		return startWithCard(spec, cfg, h)
	}
	spec.Access = access(cfg, h)
	spec.Access.Open = files[fdMemory:]
	c, err := child.Start(spec)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		spec.Namespaces = 0
		c, err = child.Start(spec)
	}
	return c, nil, startError(cfg.Binary, err)
}

// access is what Firecracker opens itself, but for what it has descriptors of and opens again: the
// disks, and the memory it is restored from where that is a file.
func access(cfg vmm.Config, h *home) *child.Access {
	binary := cfg.At(cfg.Binary)
	a := &child.Access{
		Read:    slices.Concat([]string{binary, "/etc/ld.so.cache", "/sys/devices/system", "/proc/cpuinfo"}, child.Software, child.Linked(binary)),
		Write:   []string{"/dev/null", "/dev/urandom", "/dev/kvm", "/dev/net/tun"},
		Sockets: []string{cfg.At(h.name)},
	}
	for _, file := range []string{cfg.Kernel, cfg.Initrd} {
		if file != "" {
			a.Read = append(a.Read, cfg.At(file))
		}
	}
	return a
}

func arguments(h *home) []string {
	return []string{
		"--api-sock", h.inside(apiName), "--id", "banger",
		"--log-path", inherited(fdLog), "--level", "Warn",
	}
}

func startError(binary string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrPermission):
		return banger.Errorf(banger.Unavailable, "cannot run %s: %w", binary, err)
	}
	return fmt.Errorf("cannot run %s: %w", binary, err)
}
