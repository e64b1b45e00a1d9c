package vm

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"banger"
	"banger/internal/config"
	"banger/internal/guestwire"
	"banger/internal/shim"
	"banger/internal/vmm"
)

// Start implements Service. A VM that runs already is left alone. A suspended
// one is resumed. One that has run boots from its disk; one that never did is a
// fork of a template where there is one. With cold all of them boot, and a
// suspended one loses its memory.
func (m *Manager) Start(ctx context.Context, id string, cold, wait bool, p Progress) (View, error) {
	return m.change(ctx, id, "start", func(ctx context.Context, row banger.VM) error { return m.start(ctx, row, cold, wait, p) })
}

func (m *Manager) start(ctx context.Context, row banger.VM, cold, wait bool, p Progress) error {
	l, err := m.attach(ctx, row)
	if err == nil && l != nil {
		l, err = m.outlastStop(ctx, l, p)
	}
	if err != nil {
		return err
	}
	var was *shim.Suspended
	if l == nil {
		if was, err = m.suspended(row.ID); err != nil {
			return err
		}
		l, err = m.boot(ctx, row.ID, was, cold, p)
	}
	if err != nil || !wait {
		return err
	}
	err = m.awaitReady(ctx, row, l, p)
	if l.ended() {
		if now, bad := m.suspended(row.ID); bad == nil && now != nil && was == nil {
			return m.start(ctx, row, cold, wait, p) // a suspension that was cut off came to its end meanwhile
		}
		err = errors.Join(err, m.recordEnd(ctx, row.ID, nil))
	}
	if err == nil && was != nil && !cold {
		l.tellOfBoot(p)
	}
	return err
}

// outlastStop waits for the end of a VM that is being stopped, for somebody who did not
// wait for it, and records it. It gives l of any other, and nil of one that ended.
func (m *Manager) outlastStop(ctx context.Context, l *live, p Progress) (*live, error) {
	if status, _, _ := l.seen(); status == nil || status.State != shim.Stopping {
		return l, nil
	}
	p.Stage("stop guest")
	_, err := l.await(ctx, func(s shim.Status) bool { return s.State != shim.Stopping })
	switch {
	case err != nil:
		return nil, banger.Errorf(banger.Cancelled, "%w", err)
	case !l.ended():
		return l, nil
	}
	return nil, m.recordEnd(ctx, l.id, nil)
}

// attach gives what is known of the VM's shim, nil where it has none. A shim
// that came up after its daemon had died is found here, and does from then on what
// the row says; an end that could not be recorded is found too.
func (m *Manager) attach(ctx context.Context, row banger.VM) (*live, error) {
	switch l := m.liveOf(row.ID); {
	case l == nil:
	case l.ended():
		return nil, m.recordEnd(ctx, row.ID, nil)
	default:
		return l, nil
	}
	dir := m.Dirs.VM(row.ID)
	if !ours(dir, row.ID) {
		return nil, banger.Errorf(banger.NotFound, "its directory %s is gone", dir).
			Hint("banger vm delete %s", row.Name)
	}
	switch _, alive, err := m.Shims.Alive(dir); {
	case err != nil:
		return nil, fileError(err)
	case alive:
		l := m.adopt(row.ID)
		m.awaitFirstWords(ctx, []*live{l})
		m.agreeOnNetworks(ctx, []banger.VM{row}, []*live{l})
		return l, nil
	}
	return nil, nil
}

// adopt follows a shim that runs.
func (m *Manager) adopt(id string) *live {
	l := newLive(id)
	m.put(l)
	m.watch(l)
	return l
}

// boot starts a VM that does not run: from where it was suspended, where it
// was.
func (m *Manager) boot(ctx context.Context, id string, was *shim.Suspended, cold bool, p Progress) (*live, error) {
	watch := newStopwatch()
	row, err := m.Store.VM(ctx, id)
	if err != nil {
		return nil, err
	}
	cfg, err := m.config(p)
	if err != nil {
		return nil, err
	}
	image, err := m.Images.Image(ctx, row.ImageID)
	if err != nil {
		return nil, err
	}
	b, err := m.describe(ctx, row, image, cfg)
	if err != nil {
		return nil, m.missing(row, image, err)
	}
	switch {
	case was != nil && cold:
		p.Warn("its saved memory is dropped")
		if err := forget(m.Dirs.VM(id)); err != nil {
			return nil, err
		}
	case was != nil:
		b.asItRan(was.Driver, was.Machine)
		b.launch.Restore = &shim.Restore{Suspended: true}
	case !cold && row.Runtime.BootCount == 0:
		m.fromTemplate(ctx, &b)
	}
	defer b.close()
	watch.mark("reserve")
	if b.fork != nil {
		if err := m.forkDisk(ctx, m.Dirs.VM(id), row.Spec.DiskBytes, &b); err != nil {
			return nil, err
		}
		watch.mark("disk")
	}
	b.launch.Trace = watch.phases
	l, err := m.begin(ctx, row, b, p)
	return l, m.missing(row, image, err)
}

// begin starts a VM that is described. The row says so first: a daemon that
// dies in between finds out at its next start what became of it.
func (m *Manager) begin(ctx context.Context, row banger.VM, b begin, p Progress) (*live, error) {
	l := newLive(row.ID)
	m.put(l) // before the row says running, or a listing would miss the shim
	err := m.Store.SetState(ctx, row.ID, banger.StateRunning, b.runtime)
	if err == nil {
		err = m.launch(ctx, l, b.launch, p)
	}
	if err != nil {
		m.revert(ctx, row)
		return nil, err
	}
	m.follow(l, b)
	return l, nil
}

// revert puts back what the row said before a start that failed.
func (m *Manager) revert(ctx context.Context, before banger.VM) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if err := m.Store.SetState(ctx, before.ID, before.State, before.Runtime); err != nil {
		m.Log.Error("cannot record that a start failed", "vm", before.ID, "err", err)
	}
	m.drop(before.ID)
}

// describe computes what a shim is to start, and the runtime of the row once
// it has.
func (m *Manager) describe(ctx context.Context, row banger.VM, image Image, cfg config.Config) (b begin, err error) {
	kernel, err := m.Kernels.Get(row.Spec.Kernel)
	if err != nil {
		return b, err
	}
	initrd, digest, err := m.Initramfs(ctx, kernel)
	if err != nil {
		return b, err
	}
	machine, err := m.Choose(ctx, cfg, kernel)
	if err != nil {
		return b, err
	}
	network, err := networkOf(row, cfg)
	if err != nil {
		return b, err
	}
	trust, _ := m.trust(cfg)
	r := row.Runtime
	r.VMM, r.Accel = machine.Driver, string(machine.Accel)
	r.StartedAt, r.EndedAt, r.LastError = time.Now().UTC(), time.Time{}, ""
	r.BootCount++
	r.Visited = false
	r.Creating = false // whoever creates says so otherwise, by not saving this yet
	b.runtime = r
	b.launch = shim.Launch{
		ID: row.ID, Name: row.Name, Driver: machine.Driver, Ephemeral: row.Spec.Ephemeral, ReadyTimeout: m.readyTimeout,
		OwnInit: row.Spec.Init == banger.InitSystemd,
		Machine: m.machine(row, image, kernel, initrd, machine),
		Network: network, Ports: m.portsOf(ctx, row, network, cfg),
		Setup: guestwire.Setup{
			Hostname: row.Name, MachineID: row.ID, GuestIP: row.GuestIP,
			Image: identify(image), Env: image.Env, WorkDir: image.WorkDir, User: image.User, DiskBytes: row.Spec.DiskBytes,
			Trust: string(trust),
		},
	}
	b.spec = templateOf(image, kernel, digest, row.Spec.Init, machine, b.launch)
	return b, nil
}

func (m *Manager) machine(row banger.VM, image Image, kernel banger.Kernel, initrd string, chosen Machine) vmm.Config {
	dir := m.Dirs.VM(row.ID)
	kernelPath := kernel.VmlinuzPath
	if chosen.Features.UncompressedKernel {
		kernelPath = kernel.VmlinuxPath
	}
	return vmm.Config{
		Dir: string(dir), Binary: chosen.Binary, Accel: chosen.Accel,
		VCPU: row.Spec.VCPU, MemoryMiB: row.Spec.MemoryMiB,
		Kernel: kernelPath, Initrd: initrd, Cmdline: cmdline(image, row.Spec.Init),
		Disks: disks(image, kernel, filepath.Base(dir.Disk())),
		NIC:   shim.NIC(),
	}
}

// disks lists a VM's. The work seed's is there at every boot, although only the
// first reads it: a machine that was saved has to be restored with what it had.
func disks(image Image, kernel banger.Kernel, own string) []vmm.Disk {
	all := []vmm.Disk{
		{Serial: "root", Path: image.RootfsPath, ReadOnly: true},
		{Serial: "modules", Path: kernel.ModulesPath, ReadOnly: true},
	}
	if image.Seed != "" {
		all = append(all, vmm.Disk{Serial: "seed", Path: image.WorkSeedPath, ReadOnly: true})
	}
	return append(all, vmm.Disk{Serial: "disk", Path: own})
}

// launch starts the shim for l. A start that fails leaves no process.
func (m *Manager) launch(ctx context.Context, l *live, launch shim.Launch, p Progress) error {
	p.Stage("start VMM")
	launch.Began = time.Now()
	client, err := m.Shims.Start(ctx, m.Dirs.VM(l.id), launch)
	if err != nil {
		m.drop(l.id)
		return err
	}
	l.change(func() { l.client = client })
	m.watch(l)
	return nil
}
