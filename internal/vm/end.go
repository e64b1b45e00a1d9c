package vm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/paths"
	"banger/internal/shim"
)

// recordEnd writes down how a run ended, and removes a VM that was to go. A
// nil exit means what the shim left behind. The VM is locked.
func (m *Manager) recordEnd(ctx context.Context, id string, exit *shim.Exit) error {
	row, err := m.Store.VM(ctx, id)
	if banger.CodeOf(err) == banger.NotFound {
		m.drop(id)
		return nil
	}
	if err != nil {
		return err
	}
	if row.Spec.Ephemeral {
		return m.eraseWhole(ctx, id)
	}
	o := m.look(m.Dirs.VM(id))
	o.Alive = false
	if exit != nil {
		o.Exit = exit
	}
	row.State = banger.StateRunning
	if err := m.saveEnd(ctx, row, o); err != nil {
		return err
	}
	m.touchLast(ctx, row)
	m.drop(id)
	m.goes(func() { m.tidy(id) })
	return nil
}

// saveEnd writes the state that follows from o, and when the run ended.
func (m *Manager) saveEnd(ctx context.Context, row banger.VM, o Observation) error {
	state, lastError := Observe(row, o)
	r := row.Runtime
	r.LastError, r.EndedAt, r.Visited = lastError, time.Now().UTC(), false
	if o.Exit != nil {
		r.EndedAt = o.Exit.At.UTC()
	}
	return m.Store.SetState(ctx, row.ID, state, r)
}

// touchLast saves the last use of a VM that ended: its shim cannot be asked
// any more.
func (m *Manager) touchLast(ctx context.Context, row banger.VM) {
	l := m.liveOf(row.ID)
	if l == nil {
		return
	}
	status, _, _ := l.seen()
	if status == nil || !status.LastTouched.After(row.LastTouchedAt) {
		return
	}
	if err := m.Store.TouchVMs(ctx, map[string]time.Time{row.ID: status.LastTouched}); err != nil {
		m.Log.Warn("cannot record when a VM was last used", "vm", row.ID, "err", err)
	}
}

// Delete implements Service. A VM that is gone is no error; of another tool's
// VM only the row is removed.
func (m *Manager) Delete(ctx context.Context, id string, force bool) error {
	unlock, err := m.lockToDelete(ctx, id, force)
	if err != nil {
		return err
	}
	defer unlock()
	row, err := m.Store.VM(ctx, id)
	switch {
	case banger.CodeOf(err) == banger.NotFound:
		return nil
	case err != nil:
		return err
	case foreign(row):
		return m.Store.DeleteVM(ctx, id)
	}
	if !force {
		if err := m.refuseLive(row); err != nil {
			return err
		}
	}
	return banger.Wrap(m.eraseWhole(ctx, id), "cannot delete %s", row.Name)
}

// eraseWhole is erase for a ctx that may end. Begun, it is finished: half of it would
// be no use to anyone.
func (m *Manager) eraseWhole(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	return m.erase(ctx, id)
}

// lockToDelete locks a VM. With force, whatever else is being done to it is broken
// off.
func (m *Manager) lockToDelete(ctx context.Context, id string, force bool) (unlock func(), err error) {
	if !force {
		return m.locks.lock(ctx, id)
	}
	return m.locks.lockEnd(ctx, id, func() { m.cutPower(ctx, id, syscall.SIGKILL) })
}

func (m *Manager) refuseLive(row banger.VM) error {
	l := m.liveOf(row.ID)
	alive := l != nil && !l.ended()
	if l == nil {
		var err error
		if _, alive, err = m.Shims.Alive(m.Dirs.VM(row.ID)); err != nil {
			return fileError(err)
		}
	}
	if !alive {
		return nil
	}
	return banger.Errorf(banger.Conflict, "cannot delete %s: it is running", row.Name).
		Hint("banger vm stop %s", row.Name).Hint("banger vm delete -f %s", row.Name)
}

// erase removes everything of a VM: processes, directory, row, in an order in
// which a crash leaves too much, which the next erase or Reconcile finishes.
// What lies in the trash says that its row is to go. The VM is locked. Its shim is
// forgotten last: while it is known, whoever comes next finds that the VM ended, and
// removes one that was to go.
func (m *Manager) erase(ctx context.Context, id string) error {
	if err := m.clear(ctx, id); err != nil {
		return err
	}
	if err := m.Store.DeleteVM(ctx, id); err != nil {
		return err
	}
	m.drop(id)
	m.forgetHostKey(id)
	free := holdFiles(m.trashDir(id))
	if err := os.RemoveAll(string(m.trashDir(id))); err != nil {
		// The VM is gone; Reconcile takes the rest.
		m.Log.Warn("cannot empty the trash", "vm", id, "err", err)
	}
	go free()
	return nil
}

// holdFiles keeps what the files of a directory hold until free, so that they
// can be removed at once. Where a file system tells its device of each block that
// becomes free, those of a disk take it 20 to 150 ms, for which the removal of the
// directory waits too when it is the end of the VMM that frees them. A daemon
// that dies frees them as well.
func holdFiles(dir paths.VM) (free func()) {
	var held []int
	entries, _ := os.ReadDir(string(dir))
	for _, e := range entries {
		// Only the name is opened, which a lock does not notice.
		fd, err := unix.Open(filepath.Join(string(dir), e.Name()), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == nil {
			held = append(held, fd)
		}
	}
	return func() {
		for _, fd := range held {
			_ = unix.Close(fd)
		}
	}
}

// clear ends what runs in a VM's directory and moves that out of sight. A shim
// that only just took the VM is found in the trash; one that comes later finds
// nothing.
func (m *Manager) clear(ctx context.Context, id string) error {
	dir := m.Dirs.VM(id)
	if ours(dir, id) {
		if err := m.Shims.KillRecorded(ctx, dir); err != nil {
			return err
		}
	}
	if err := m.discard(id, dir); err != nil {
		return err
	}
	return errors.Join(m.Shims.KillRecorded(ctx, m.trashDir(id)), removeUnfinished(m.newDir(id)))
}
