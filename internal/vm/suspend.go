package vm

import (
	"context"
	"os"
	"time"

	"banger"
	"banger/internal/artifact"
	"banger/internal/paths"
	"banger/internal/shim"
	"banger/internal/vmm"
)

// Suspend implements Service. A VM that is suspended is left alone.
func (m *Manager) Suspend(ctx context.Context, id string, p Progress) (View, error) {
	return m.change(ctx, id, "suspend", func(ctx context.Context, row banger.VM) error { return m.suspend(ctx, row, Shim.Suspend, p) })
}

// suspendTimeout is a little more than a shim takes at most.
const suspendTimeout = 16 * time.Minute

func (m *Manager) suspend(ctx context.Context, row banger.VM, save func(Shim, context.Context) (shim.Exit, error), p Progress) error {
	if err := refuseEphemeral(row); err != nil {
		return err
	}
	l, err := m.attach(ctx, row)
	if err != nil {
		return err
	}
	if l == nil {
		if was, err := m.suspended(row.ID); err != nil || was != nil {
			return err
		}
		return notRunning(nil, row)
	}
	if err := m.becomeReady(ctx, row, l, p); err != nil {
		return err
	}
	// Begun, it is finished: the shim goes on, and nobody could say meanwhile
	// whether the VM runs. A daemon that ends leaves it to the shim, and the next one
	// finds out; before that, what somebody asked for has come to its end.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), suspendTimeout)
	defer cancel()
	defer context.AfterFunc(m.ctx, cancel)()
	err = m.end(ctx, row, func(s Shim) (shim.Exit, error) {
		p.Stage("save memory")
		return save(s, ctx)
	})
	if err != nil {
		return err
	}
	if was, err := m.suspended(row.ID); err != nil || was != nil {
		return err
	}
	return banger.Errorf(banger.NotRunning, "it ended before its memory was saved").Hint("banger vm show %s", row.Name)
}

// refuseEphemeral refuses what makes no sense for a VM that goes with its
// owner, and would end it.
func refuseEphemeral(row banger.VM) error {
	if !row.Spec.Ephemeral {
		return nil
	}
	return banger.Errorf(banger.Conflict, "it goes when the command that made it ends").
		Hint(withoutRm)
}

const withoutRm = "make the VM without --rm"

// hintStop tells to stop a VM first, unless that would remove it.
func hintStop(err *banger.Error, row banger.VM) *banger.Error {
	if row.Spec.Ephemeral {
		return err.Hint(withoutRm)
	}
	return err.Hint("banger vm stop %s", row.Name)
}

// suspended is the saved machine of a VM that does not run; nil where there is
// none.
func (m *Manager) suspended(id string) (*shim.Suspended, error) {
	return shim.ReadSuspended(m.Dirs.VM(id))
}

// becomeReady waits for a guest that is not up yet.
func (m *Manager) becomeReady(ctx context.Context, row banger.VM, l *live, p Progress) error {
	if status, gone, _ := l.seen(); !gone && status != nil && (status.State == shim.Running || status.State == shim.Paused) {
		return nil
	}
	return m.awaitReady(ctx, row, l, p)
}

// wake resumes a VM that is suspended, and does nothing with others.
func (m *Manager) wake(ctx context.Context, row banger.VM, p Progress) error {
	if l, err := m.attach(ctx, row); err != nil || l != nil {
		return err
	}
	was, err := m.suspended(row.ID)
	if err != nil || was == nil {
		return err
	}
	return m.start(ctx, row, false, true, p)
}

// killSuspended drops the memory of a VM that does not run.
func (m *Manager) killSuspended(ctx context.Context, row banger.VM) error {
	was, err := m.suspended(row.ID)
	if err != nil || was == nil {
		return notRunning(err, row)
	}
	if err := forget(m.Dirs.VM(row.ID)); err != nil {
		return err
	}
	r := row.Runtime
	r.LastError, r.EndedAt = "", time.Now().UTC()
	return m.Store.SetState(ctx, row.ID, banger.StateStopped, r)
}

// forget drops the saved machine in dir, whole in one step.
func forget(dir paths.VM) error {
	dropped := dir.Scratch("dropped")
	if err := os.RemoveAll(dropped); err != nil {
		return fileError(err)
	}
	if err := artifact.Rename(dir.Suspended(), dropped); err != nil {
		return fileError(err)
	}
	return fileError(os.RemoveAll(dropped))
}

// asItRan has a start be of the machine that was saved, wherever the
// configuration has gone since. What only a boot needs is today's.
func (b *begin) asItRan(driver string, ran vmm.Config) {
	if driver == "" {
		return // the record is damaged: the shim says so
	}
	m := &b.launch.Machine
	if driver != b.launch.Driver {
		m.Kernel = ran.Kernel // in the form this driver asks for
	}
	b.launch.Driver = driver
	m.Binary, m.Accel, m.VCPU, m.MemoryMiB = ran.Binary, ran.Accel, ran.VCPU, ran.MemoryMiB
	b.runtime.VMM, b.runtime.Accel = driver, string(ran.Accel)
}

// tellOfBoot says that a VM which was to be resumed was not.
func (l *live) tellOfBoot(p Progress) {
	if status, _, _ := l.seen(); status != nil && status.NotRestored != "" {
		p.Warn("its saved memory could not be taken up, so it was booted from its disk: " + status.NotRestored)
	}
}
