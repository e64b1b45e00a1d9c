package vm

import (
	"context"
	"sync"
	"time"

	"banger"
	"banger/internal/shim"
)

// tendInterval is how often uses of VMs and samples of what they use reach the
// ledger, and idle ones are looked for.
const tendInterval = time.Minute

// use is what the shim of a VM says of its use.
type use struct {
	row    banger.VM
	live   *live
	status shim.Status
}

// tend does what is due each minute.
func (m *Manager) tend(ctx context.Context) {
	all, err := m.uses(ctx)
	if err != nil {
		m.Log.Warn("cannot look after the VMs", "err", err)
		return
	}
	m.writeTouches(ctx, all)
	m.writeSamples(ctx, all)
	m.endIdle(all)
}

// uses asks all shims that answer, at once: one that hangs delays no other. They are
// asked and not only heard, since a use is no change that they tell of.
func (m *Manager) uses(ctx context.Context) (all []use, err error) {
	rows, err := m.Store.VMs(ctx)
	var asking sync.WaitGroup
	var mu sync.Mutex
	for _, row := range rows {
		l := m.liveOf(row.ID)
		if l == nil {
			continue
		}
		asking.Go(func() {
			if status, ok := m.ask(ctx, l); ok {
				mu.Lock()
				defer mu.Unlock()
				all = append(all, use{row, l, status})
			}
		})
	}
	asking.Wait()
	return all, err
}

func (m *Manager) ask(ctx context.Context, l *live) (shim.Status, bool) {
	s, err := l.shim()
	if err != nil {
		return shim.Status{}, false
	}
	ctx, cancel := context.WithTimeout(ctx, m.shimTimeout)
	defer cancel()
	status, err := s.Status(ctx)
	return status, err == nil
}

// writeTouches saves when VMs were used, where that is new, all in one commit.
func (m *Manager) writeTouches(ctx context.Context, all []use) {
	touched := map[string]time.Time{}
	for _, u := range all {
		if u.status.LastTouched.After(u.row.LastTouchedAt) {
			touched[u.row.ID] = u.status.LastTouched
		}
	}
	if err := m.Store.TouchVMs(ctx, touched); err != nil {
		m.Log.Warn("cannot record when VMs were last used", "err", err)
	}
}
