package vm

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"reflect"
	"time"

	"banger"
	"banger/internal/paths"
	"banger/internal/shim"
)

// Reconcile implements Service. What cannot be put right is logged and left
// as it is: a VM in an odd state must not keep the others from working.
func (m *Manager) Reconcile(ctx context.Context) error {
	m.killOrphans(ctx)
	if err := m.emptyTrash(ctx); err != nil {
		return err
	}
	if err := m.removeUnfinishedDirs(); err != nil {
		return err
	}
	if err := m.restoreRows(ctx); err != nil {
		return err
	}
	rows, err := m.Store.VMs(ctx)
	if err != nil {
		return err
	}
	m.keepHostKeys(rows)
	var adopted []*live
	for _, row := range rows {
		l, err := m.reconcile(ctx, row)
		if err != nil {
			m.Log.Error("cannot reconcile a VM", "vm", row.ID, "name", row.Name, "err", err)
		}
		if l != nil {
			adopted = append(adopted, l)
		}
	}
	m.awaitFirstWords(ctx, adopted)
	m.agreeOnNetworks(ctx, rows, adopted)
	return ctx.Err()
}

// killOrphans ends the processes that no shim and no directory leads to.
func (m *Manager) killOrphans(ctx context.Context) {
	killed, err := m.Shims.KillOrphans(ctx, m.Dirs.VMs())
	for _, r := range killed {
		m.Log.Warn("killed a process that was left of a VM", "vm", r.VM, "pid", r.PID)
	}
	if err != nil {
		m.Log.Error("cannot kill what is left of VMs", "err", err)
	}
}

// awaitFirstWords lets the shims say how their VMs are before anybody asks.
func (m *Manager) awaitFirstWords(ctx context.Context, adopted []*live) {
	ctx, cancel := context.WithTimeout(ctx, m.shimTimeout)
	defer cancel()
	for _, l := range adopted {
		_, _ = l.await(ctx, func(shim.Status) bool { return true })
	}
}

// agreeOnNetworks finishes changes of networks that were cut off.
func (m *Manager) agreeOnNetworks(ctx context.Context, rows []banger.VM, adopted []*live) {
	byID := map[string]banger.VM{}
	for _, row := range rows {
		byID[row.ID] = row
	}
	for _, l := range adopted {
		if err := m.agreeOnNetwork(ctx, l, byID[l.id]); err != nil {
			m.Log.Error("cannot change the network of a VM", "vm", l.id, "err", err)
		}
	}
}

// emptyTrash finishes deletions: what lies there was to go, with its row.
func (m *Manager) emptyTrash(ctx context.Context) error {
	names, err := namesIn(m.Dirs.VMTrash())
	if err != nil {
		return err
	}
	for _, id := range names {
		if !banger.IsID(id) {
			continue
		}
		if err := m.erase(ctx, id); err != nil {
			m.Log.Error("cannot finish the deletion of a VM", "vm", id, "err", err)
		}
	}
	return nil
}

func (m *Manager) removeUnfinishedDirs() error {
	names, err := namesIn(m.Dirs.VMs())
	if err != nil {
		return err
	}
	for _, name := range names {
		id, ok := Unplaced(name)
		if !ok {
			continue
		}
		if err := removeUnfinished(m.newDir(id)); err != nil {
			m.Log.Warn("cannot remove an unfinished directory", "dir", name, "err", err)
		}
	}
	return nil
}

func namesIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, fileError(err)
}

// restoreRows writes the rows that directories have and the ledger lacks. No
// deletion leaves such a directory, so the ledger lost them.
func (m *Manager) restoreRows(ctx context.Context) error {
	rows, err := m.Store.VMs(ctx)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, row := range rows {
		known[row.ID] = true
	}
	names, err := namesIn(m.Dirs.VMs())
	if err != nil {
		return err
	}
	for _, id := range names {
		if known[id] || !ours(m.Dirs.VM(id), id) {
			continue
		}
		if err := m.restoreRow(ctx, id); err != nil {
			m.Log.Error("cannot restore the row of a VM", "vm", id, "err", err)
		}
	}
	return nil
}

func (m *Manager) restoreRow(ctx context.Context, id string) error {
	held, err := ReadHeld(m.Dirs.VM(id))
	if err != nil {
		return err
	}
	cfg, _, err := m.Config()
	if err != nil {
		return err
	}
	row := held.row()
	if row.Runtime, err = m.lastRuntime(id); err != nil {
		return err
	}
	if row.Runtime.BootCount > 0 {
		row.State = banger.StateRunning // until it is looked at
	}
	_, err = m.Store.ReserveVMs(ctx, []banger.VM{row}, cfg.NetworkPrefix)
	if banger.CodeOf(err) == banger.AlreadyExists {
		// Another VM has its name or address by now.
		row.Name, row.GuestIP = banger.GenerateName(func(string) bool { return false }), ""
		_, err = m.Store.ReserveVMs(ctx, []banger.VM{row}, cfg.NetworkPrefix)
	}
	if err == nil {
		m.Log.Warn("restored the row of a VM from its directory", "vm", id, "name", row.Name)
	}
	return err
}

// lastRuntime is what a VM's directory tells of its last start.
func (m *Manager) lastRuntime(id string) (banger.Runtime, error) {
	launch, err := shim.ReadLaunch(m.Dirs.VM(id))
	switch {
	case banger.CodeOf(err) == banger.NotFound:
		return banger.Runtime{}, nil
	case err != nil:
		return banger.Runtime{}, err
	}
	r := banger.Runtime{VMM: launch.Driver, Accel: string(launch.Machine.Accel), BootCount: 1}
	if info, err := os.Stat(m.Dirs.VM(id).Launch()); err == nil {
		r.StartedAt = info.ModTime().UTC()
	}
	return r, nil
}

// reconcile puts one VM right and gives its shim, where it has one.
func (m *Manager) reconcile(ctx context.Context, row banger.VM) (*live, error) {
	unlock, err := m.locks.lock(ctx, row.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if foreign(row) {
		return nil, nil
	}
	if row.Runtime.Creating {
		return nil, m.erase(ctx, row.ID)
	}
	dir := m.Dirs.VM(row.ID)
	held, err := ReadHeld(dir)
	if err != nil || held.ID != row.ID {
		return nil, m.reconcileWithoutDir(ctx, row)
	}
	if err := repairHeld(dir, held, row); err != nil {
		return nil, err
	}
	o := m.look(dir)
	if err := sweep(dir, o.Alive); err != nil {
		m.Log.Warn("cannot remove what was not finished", "vm", row.ID, "err", err)
	}
	if row.Runtime.Visited && row.State.Live() {
		return nil, m.endVisit(ctx, row)
	}
	if o.Alive {
		l := m.adopt(row.ID)
		m.expectOwner(row, l)
		return l, m.reconcileAlive(ctx, row)
	}
	return nil, m.reconcileDead(ctx, row, o)
}

func (m *Manager) reconcileWithoutDir(ctx context.Context, row banger.VM) error {
	if row.Spec.Ephemeral {
		return m.erase(ctx, row.ID)
	}
	if !row.State.Live() {
		return nil
	}
	return m.saveEnd(ctx, row, Observation{})
}

// reconcileAlive corrects the row of a VM that runs although it says otherwise.
func (m *Manager) reconcileAlive(ctx context.Context, row banger.VM) error {
	if row.State.Live() {
		return nil
	}
	r := row.Runtime
	r.EndedAt, r.LastError = time.Time{}, ""
	return m.Store.SetState(ctx, row.ID, banger.StateRunning, r)
}

func (m *Manager) reconcileDead(ctx context.Context, row banger.VM, o Observation) error {
	if row.Spec.Ephemeral {
		return m.erase(ctx, row.ID)
	}
	if exists(m.Dirs.VM(row.ID).Restoring()) {
		return m.finishRestore(ctx, row.ID)
	}
	// A shim that was killed leaves its socket.
	if err := os.Remove(m.Dirs.VM(row.ID).ShimSocket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.Log.Warn("cannot remove a socket", "vm", row.ID, "err", err)
	}
	if state, _ := Observe(row, o); state == row.State {
		return nil
	}
	return m.saveEnd(ctx, row, o)
}

// sameWorkspace compares times as instants: a row has them in UTC.
func sameWorkspace(a, b banger.Workspace) bool {
	same := a.PreparedAt.Equal(b.PreparedAt)
	a.PreparedAt = b.PreparedAt
	return same && a == b
}

// repairHeld brings vm.json in line with the row, which is written first.
func repairHeld(dir paths.VM, h Held, row banger.VM) error {
	if h.Name == row.Name && h.GuestIP == row.GuestIP && sameWorkspace(h.Workspace, row.Workspace) && reflect.DeepEqual(h.Spec, row.Spec) {
		return nil
	}
	return hold(dir, row)
}
