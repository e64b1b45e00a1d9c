package vm

import (
	"context"
	"errors"
	"time"

	"banger"
	"banger/internal/config"
)

// undoTimeout bounds the undoing of what failed, which goes on when the
// request it belonged to has ended.
const undoTimeout = 30 * time.Second

// Create implements Service. Whatever goes wrong, all of it is undone; only a
// VM whose guest was started and did not come up stays, to be looked at.
func (m *Manager) Create(ctx context.Context, c Create, p Progress) (View, error) {
	watch := newStopwatch()
	cfg, err := m.config(p)
	if err != nil {
		return View{}, err
	}
	vm, err := plan(c, cfg, p)
	if err != nil {
		return View{}, err
	}
	taken, err := m.checkName(ctx, vm.Name)
	if err == nil && c.Start {
		err = banger.Wrap(checkPublish(vm.Spec), "cannot create %s", or(vm.Name, "a VM"))
	}
	if err != nil {
		return View{}, err
	}
	image, err := m.prepare(ctx, c, cfg, &vm, p)
	if err != nil {
		return View{}, err
	}
	work, unlock, err := m.locks.lockWork(ctx, vm.ID)
	if err != nil {
		return View{}, err
	}
	defer unlock()
	if vm, err = m.reserve(ctx, vm, cfg.NetworkPrefix, taken); err != nil {
		return View{}, err
	}
	kept, err := m.build(work, c, vm, image, cfg, watch, p)
	if err != nil && !kept {
		m.undo(ctx, vm)
	}
	if err != nil {
		return View{}, banger.Wrap(m.missing(vm, image, cancelled(work, err)), "cannot create %s", vm.Name)
	}
	return m.viewAfter(ctx, vm)
}

// cancelled gives what follows from an ended request that code, whoever
// noticed.
func cancelled(ctx context.Context, err error) error {
	switch {
	case err != nil && errors.Is(context.Cause(ctx), errEnded):
		return errEnded
	case err != nil && ctx.Err() != nil:
		return banger.Errorf(banger.Cancelled, "%w", err)
	}
	return err
}

func (m *Manager) config(p Progress) (config.Config, error) {
	cfg, warnings, err := m.Config()
	for _, w := range warnings {
		p.Warn(string(w))
	}
	_, problems := m.trust(cfg)
	for _, problem := range problems {
		p.Warn("inherit_ca: " + problem)
	}
	return cfg, err
}

// prepare gets what a VM is made of and must be there before the VM is.
func (m *Manager) prepare(ctx context.Context, c Create, cfg config.Config, vm *banger.VM, p Progress) (Image, error) {
	image, err := m.Images.Ensure(ctx, or(c.Image, cfg.DefaultImage), c.Access, p.Stage)
	if err != nil {
		return Image{}, err
	}
	kernel, err := m.kernel(ctx, or(or(c.Kernel, image.Kernel), cfg.DefaultKernel), c.Access, p)
	if err != nil {
		return Image{}, err
	}
	vm.Spec.Kernel, vm.ImageID = kernel.Digest, image.ID
	return image, checkDisk(vm.Spec, image)
}

// kernel finds a kernel, or gets one of the catalogue.
func (m *Manager) kernel(ctx context.Context, ref string, access banger.Access, p Progress) (banger.Kernel, error) {
	k, err := m.Kernels.Get(ref)
	if banger.CodeOf(err) == banger.NotFound {
		return m.Kernels.Pull(ctx, ref, false, access, p.Stage)
	}
	return k, err
}

// nameAttempts is how often a generated name may turn out to be taken.
const nameAttempts = 5

// reserve writes the row, with a name where none was asked for.
func (m *Manager) reserve(ctx context.Context, vm banger.VM, network string, taken func(string) bool) (banger.VM, error) {
	if vm.Name != "" {
		return m.Store.ReserveVM(ctx, vm, network)
	}
	for attempt := 1; ; attempt++ {
		vm.Name = banger.GenerateName(taken)
		row, err := m.Store.ReserveVM(ctx, vm, network)
		if banger.CodeOf(err) != banger.AlreadyExists || attempt == nameAttempts {
			return row, err
		}
	}
}

// build makes the VM that the row announces, and acknowledges it there. kept
// says that it failed but is to stay.
func (m *Manager) build(ctx context.Context, c Create, vm banger.VM, image Image, cfg config.Config, watch *stopwatch, p Progress) (kept bool, err error) {
	var b begin
	if c.Start {
		if b, err = m.describe(ctx, vm, image, cfg); err != nil {
			return false, err
		}
		if !c.Cold {
			m.fromTemplate(ctx, &b)
		}
		defer b.close()
	}
	watch.mark("reserve")
	p.Stage("create disk")
	if err := m.makeDir(ctx, vm, &b); err != nil {
		return false, err
	}
	if err := writeSeed(m.Dirs.VM(vm.ID).Seed(), cfg.FileSync, p.Warn); err != nil {
		return false, err
	}
	watch.mark("disk")
	if !c.Start {
		vm.Runtime.Creating = false
		return false, m.Store.SetState(ctx, vm.ID, banger.StateCreated, vm.Runtime)
	}
	vm.Runtime = b.runtime
	l := newLive(vm.ID)
	m.put(l)
	b.launch.Trace = watch.phases
	if err := m.launch(ctx, l, b.launch, p); err != nil {
		return false, err
	}
	m.follow(l, b)
	if c.Wait {
		err := m.awaitReady(ctx, vm, l, p)
		if err != nil && ctx.Err() == nil {
			return true, m.failedBoot(ctx, vm, l, err)
		}
		if err != nil {
			return false, err
		}
	}
	if err := m.Store.SetState(ctx, vm.ID, banger.StateRunning, vm.Runtime); err != nil {
		return false, err
	}
	m.expectOwner(vm, l)
	return false, nil
}

// failedBoot keeps what there is of a VM whose guest did not come up, and
// gives why back. One that still tries stays even if it was to go with its
// owner.
func (m *Manager) failedBoot(ctx context.Context, vm banger.VM, l *live, why error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	err := m.Store.SetState(ctx, vm.ID, banger.StateRunning, vm.Runtime)
	switch {
	case err != nil:
	case l.ended():
		err = m.recordEnd(ctx, vm.ID, nil)
	case vm.Spec.Ephemeral:
		vm.State = banger.StateRunning
		err = m.keep(ctx, vm)
	}
	if err != nil {
		m.Log.Error("cannot record a failed boot", "vm", vm.ID, "err", err)
	}
	return why
}

// undo removes everything of a VM whose creation failed.
func (m *Manager) undo(ctx context.Context, vm banger.VM) {
	if err := m.eraseWhole(ctx, vm.ID); err != nil {
		// The row still says that it was being created: Reconcile goes on.
		m.Log.Error("cannot undo the creation of a VM", "vm", vm.ID, "err", err)
	}
}
