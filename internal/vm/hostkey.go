package vm

import (
	"context"

	"banger"
)

// HostKey implements Service. Most VMs are never reached by SSH, so a key is made
// when it is first asked for, and a start has nothing to do with it. A copy of a VM
// has a directory of its own, and with it a key.
//
// It does not wait for the VM's lock, which is held for as long as a VM is saved. One
// that is renamed or deleted meanwhile is looked at again.
func (m *Manager) HostKey(ctx context.Context, id string) (View, error) {
	row, err := m.Store.VM(ctx, id)
	for err == nil {
		was := row.Name
		if err = m.hostKey(row); err != nil {
			return View{}, banger.Wrap(err, "cannot reach %s by SSH", was)
		}
		if row, err = m.Store.VM(ctx, id); err == nil && row.Name == was {
			return m.Get(ctx, id)
		}
	}
	if banger.CodeOf(err) == banger.NotFound {
		m.forgetHostKey(id)
	}
	return View{}, err
}

func (m *Manager) hostKey(row banger.VM) error {
	dir := m.Dirs.VM(row.ID)
	switch {
	case foreign(row):
		return banger.Errorf(banger.Conflict, "another tool made it")
	case !ours(dir, row.ID):
		return banger.Errorf(banger.NotFound, "its directory %s is gone", dir).Hint("banger vm delete %s", row.Name)
	}
	return m.HostKeys.Host(dir, row.ID, row.Name)
}

// forgetHostKey lets go of the pin of a VM that is gone. One that stays lets nobody
// in, and the next start of the daemon removes it.
func (m *Manager) forgetHostKey(id string) {
	if err := m.HostKeys.Forget(id); err != nil {
		m.Log.Warn("cannot forget a host key", "vm", id, "err", err)
	}
}

// keepHostKeys forgets those of VMs that went when nobody was there to do so.
func (m *Manager) keepHostKeys(rows []banger.VM) {
	known := map[string]bool{}
	for _, row := range rows {
		known[row.ID] = true
	}
	if err := m.HostKeys.Keep(func(id string) bool { return known[id] }); err != nil {
		m.Log.Warn("cannot forget the host keys of VMs that are gone", "err", err)
	}
}
