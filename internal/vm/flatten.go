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

// tidy does what the end of a VM leaves to do: what a shim that was killed has
// left goes, which may be as large as the memory, and the disk becomes one file.
// It gives way to whoever wants something of the VM, and goes on afterwards if the
// VM is still at rest.
func (m *Manager) tidy(id string) {
	for done := false; !done; {
		done = m.tidyUndisturbed(id)
	}
}

// tidyUndisturbed says whether nothing is left to do; it is not where somebody
// came for the VM.
func (m *Manager) tidyUndisturbed(id string) (done bool) {
	ctx, unlock, err := m.locks.lockIdle(m.ctx, id)
	if err != nil {
		return true
	}
	defer unlock()
	defer func() { done = ctx.Err() == nil || m.ctx.Err() != nil }()
	dir := m.Dirs.VM(id)
	row, err := m.Store.VM(ctx, id)
	if err != nil || row.Spec.Ephemeral || !m.atRest(id) {
		return
	}
	if err := sweep(dir, false); err != nil {
		m.Log.Warn("cannot remove what was not finished", "vm", id, "err", err)
	}
	if !m.worthFlattening(id) {
		return
	}
	if err := layers.Flatten(ctx, string(dir)); err != nil && ctx.Err() == nil {
		m.Log.Warn("cannot make a disk one file again", "vm", id, "err", err)
	}
	return
}

// atRest says whether nobody runs a VM or is about to.
func (m *Manager) atRest(id string) bool {
	_, alive, err := m.Shims.Alive(m.Dirs.VM(id))
	return err == nil && !alive && m.liveOf(id) == nil
}

// worthFlattening says whether a VM at rest has a disk of layers that are its
// own, or too many.
func (m *Manager) worthFlattening(id string) bool {
	dir := m.Dirs.VM(id)
	if exists(dir.Restoring()) {
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
