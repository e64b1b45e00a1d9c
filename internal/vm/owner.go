package vm

import (
	"context"
	"time"

	"banger"
)

// expectOwner removes an ephemeral VM that nobody comes to own: its creator
// may have died between our answer and its first stream. Once there was an
// owner, the shim sees to it.
func (m *Manager) expectOwner(row banger.VM, l *live) {
	if !row.Spec.Ephemeral {
		return
	}
	m.goes(func() {
		timer := time.NewTimer(m.ownerGrace)
		defer timer.Stop()
		select {
		case <-m.ctx.Done():
		case <-timer.C:
			m.removeUnowned(m.ctx, l)
		}
	})
}

func (m *Manager) removeUnowned(ctx context.Context, l *live) {
	unlock, err := m.locks.lock(ctx, l.id)
	if err != nil {
		return
	}
	defer unlock()
	status, _, _ := l.seen()
	row, err := m.Store.VM(ctx, l.id)
	if err != nil || !row.Spec.Ephemeral || m.liveOf(l.id) != l || status == nil || status.Owners > 0 {
		return
	}
	m.Log.Info("removing an ephemeral VM without an owner", "vm", l.id)
	if err := m.erase(ctx, l.id); err != nil {
		m.Log.Error("cannot remove an ephemeral VM", "vm", l.id, "err", err)
	}
}
