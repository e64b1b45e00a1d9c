package vm

import (
	"os"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/layers"
)

// deepest is how many layers a disk may have whose base others share: to make
// it one file again costs a copy of all of it.
const deepest = 4

// flatten makes the disk of a VM that ended one file again, unless somebody
// wants something of the VM: then it waits for the next end.
func (m *Manager) flatten(id string) {
	ctx, unlock, err := m.locks.lockIdle(m.ctx, id)
	if err != nil {
		return
	}
	defer unlock()
	row, err := m.Store.VM(ctx, id)
	if err != nil || row.Spec.Ephemeral || !m.worthFlattening(id) {
		return
	}
	if err := layers.Flatten(ctx, string(m.Dirs.VM(id))); err != nil && ctx.Err() == nil {
		m.Log.Warn("cannot make a disk one file again", "vm", id, "err", err)
	}
}

// worthFlattening says whether a VM does not run and has a disk of layers that
// are its own, or too many.
func (m *Manager) worthFlattening(id string) bool {
	dir := m.Dirs.VM(id)
	if _, alive, err := m.Shims.Alive(dir); err != nil || alive || m.liveOf(id) != nil || exists(dir.Restoring()) {
		return false
	}
	_, above, err := layers.Of(string(dir))
	if err != nil {
		if banger.CodeOf(err) != banger.NotFound && !os.IsNotExist(err) {
			m.Log.Warn("cannot look at a disk", "vm", id, "err", err)
		}
		return false
	}
	var st unix.Stat_t
	if len(above) == 0 || unix.Stat(dir.Disk(), &st) != nil {
		return false
	}
	return st.Nlink == 1 || len(above) >= deepest
}
