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

// writeTouches asks the shims when their VMs were used and saves what is new,
// all in one commit.
func (m *Manager) writeTouches(ctx context.Context) {
	rows, err := m.Store.VMs(ctx)
	if err != nil {
		m.Log.Warn("cannot record when VMs were last used", "err", err)
		return
	}
	touched := map[string]time.Time{}
	for _, row := range rows {
		if t, ok := m.lastTouch(ctx, row.ID); ok && t.After(row.LastTouchedAt) {
			touched[row.ID] = t
		}
	}
	if err := m.Store.TouchVMs(ctx, touched); err != nil {
		m.Log.Warn("cannot record when VMs were last used", "err", err)
	}
}

func (m *Manager) lastTouch(ctx context.Context, id string) (time.Time, bool) {
	l := m.liveOf(id)
	if l == nil {
		return time.Time{}, false
	}
	s, err := l.shim()
	if err != nil {
		return time.Time{}, false
	}
	ctx, cancel := context.WithTimeout(ctx, m.shimTimeout)
	defer cancel()
	status, err := s.Status(ctx)
	return status.LastTouched, err == nil
}
