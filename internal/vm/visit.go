package vm

import (
	"context"
	"time"

	"banger"
	"banger/internal/shim"
)

// Visit implements Service.
func (m *Manager) Visit(ctx context.Context, id string, p Progress, do func(ctx context.Context) error) error {
	_, err := m.change(ctx, id, "look into", func(ctx context.Context, row banger.VM) error { return m.visit(ctx, row, p, do) })
	return err
}

func (m *Manager) visit(ctx context.Context, row banger.VM, p Progress, do func(context.Context) error) (err error) {
	if err := m.refuseVisit(ctx, row); err != nil {
		return err
	}
	if row, err = m.Store.VM(ctx, row.ID); err != nil { // which may say by now how it ended
		return err
	}
	b, err := m.describeVisit(ctx, row)
	if err != nil {
		return err
	}
	l, err := m.begin(ctx, row, b, p)
	if err != nil {
		return err
	}
	defer func() {
		p.Stage("stop the VM")
		if stopErr := m.leave(context.WithoutCancel(ctx), row); err == nil {
			err = stopErr
		}
	}()
	if err := m.awaitReady(ctx, row, l, p); err != nil {
		return err
	}
	return do(ctx)
}

// leave ends a visit. A VM that cannot be stopped is killed: it runs for nobody else,
// and with what is no VM's of that description.
func (m *Manager) leave(ctx context.Context, row banger.VM) error {
	stop, cancel := context.WithTimeout(ctx, undoTimeout)
	defer cancel()
	err := m.end(stop, row, func(s Shim) (shim.Exit, error) { return s.Stop(stop, DefaultStopTimeout) })
	if err == nil {
		return nil
	}
	m.Log.Warn("cannot stop a VM that was looked into, and kill it", "vm", row.ID, "err", err)
	kill, cancel := context.WithTimeout(ctx, undoTimeout)
	defer cancel()
	return m.killShim(kill, row)
}

// refuseVisit refuses a VM that has anything but a disk.
func (m *Manager) refuseVisit(ctx context.Context, row banger.VM) error {
	if _, err := m.attach(ctx, row); err != nil { // which records how it ended
		return err
	}
	view, err := m.Get(ctx, row.ID)
	if err != nil {
		return err
	}
	return RefuseVisit(view)
}

// RefuseVisit says of a VM as it is now why nobody can visit it, and what to do: nil
// where somebody can. A VM that does not run is not stopped by being told to stop.
func RefuseVisit(v View) error {
	err := banger.Errorf(banger.Conflict, "it is %s, and must be stopped", v.State)
	switch v.State {
	case banger.StateStopped:
		return nil
	case banger.StateCreated, banger.StateError:
		err = err.Hint("banger vm start %s", v.Name)
	}
	return hintStop(err, v.VM)
}

// describeVisit is a start of which nothing is the VM's but its disk: the agent is
// init, whatever it has else, nothing leaves it, no port of the host is its, and what it
// was given of the host to trust is taken out for as long.
func (m *Manager) describeVisit(ctx context.Context, row banger.VM) (b begin, err error) {
	cfg, _, err := m.Config()
	if err != nil {
		return b, err
	}
	cfg.InheritCA, cfg.InheritProxy = false, false
	image, err := m.Images.Image(ctx, row.ImageID)
	if err != nil {
		return b, err
	}
	row.Spec.Init, row.Spec.NAT, row.Spec.Allow, row.Spec.Publish = banger.InitAgent, false, nil, nil
	if b, err = m.describe(ctx, row, image, cfg); err != nil {
		return b, m.missing(row, image, err)
	}
	b.launch.Ports = nil
	b.runtime.Visited = true
	return b, nil
}

// endVisit ends what a daemon was doing with a VM when it died.
func (m *Manager) endVisit(ctx context.Context, row banger.VM) error {
	if err := m.Shims.KillRecorded(ctx, m.Dirs.VM(row.ID)); err != nil {
		return err
	}
	return m.saveEnd(ctx, row, Observation{Dir: true, Exit: &shim.Exit{Reason: shim.ReasonKilled, At: time.Now()}})
}
