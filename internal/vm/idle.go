package vm

import (
	"context"
	"time"

	"banger"
	"banger/internal/config"
	"banger/internal/shim"
)

// idlePolicy is what becomes of VMs that nobody uses.
type idlePolicy struct {
	after   time.Duration // 0 is never
	suspend bool          // instead of stop
}

func idlePolicyOf(c config.Config) idlePolicy {
	return idlePolicy{c.AutoStopStaleAfter, c.IdleAction == "suspend"}
}

// stale says whether a VM has been idle for long enough to be ended. One whose guest
// is in trouble is left for somebody to look at; a shim that does not say how long
// its VM has been idle is never asked to end it.
func (p idlePolicy) stale(s shim.Status) bool {
	switch s.State {
	case shim.Running, shim.Paused:
	default:
		return false
	}
	idle := time.Duration(s.IdleMillis) * time.Millisecond
	return p.after > 0 && idle >= p.after && s.Streams == 0 && s.Owners == 0 && s.Problem == ""
}

// endIdle begins to end the VMs that are stale. One that could not be ended is left
// alone for as long again. An ephemeral one, whose end removes it, has an owner to end
// with and is left to that.
func (m *Manager) endIdle(all []use) {
	c, _, err := m.Config()
	if err != nil {
		return // whoever runs a command is told
	}
	p := idlePolicyOf(c)
	for _, u := range all {
		if p.stale(u.status) && !foreign(u.row) && !u.row.Spec.Ephemeral && u.live.tryToEnd(time.Now(), p.after) {
			m.goes(func() { m.endStale(m.ctx, u, p) })
		}
	}
}

// tryToEnd says whether nobody tried within that time, and that somebody does now.
func (l *live) tryToEnd(now time.Time, within time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.endTried) < within {
		return false
	}
	l.endTried = now
	return true
}

// toEnd says whether the daemon was told to end.
func (m *Manager) toEnd() bool {
	select {
	case <-m.Ending:
		return true
	default:
		return false
	}
}

// endStale ends a VM, unless somebody came to use it meanwhile. The last word on that
// is the shim's; one of an earlier build is believed what it said a moment before.
func (m *Manager) endStale(ctx context.Context, u use, p idlePolicy) {
	verb := "stop"
	if p.suspend {
		verb = "suspend"
	}
	_, err := m.change(ctx, u.row.ID, verb, func(ctx context.Context, row banger.VM) error {
		if status, ok := m.ask(ctx, u.live); !ok || m.liveOf(row.ID) != u.live || !p.stale(status) || m.toEnd() {
			return nil
		}
		m.Log.Info("ending an idle VM", "vm", row.ID, "name", row.Name, "how", verb, "idle_for", p.after)
		if p.suspend {
			return m.suspend(ctx, row, func(s Shim, ctx context.Context) (shim.Exit, error) { return s.SuspendIdle(ctx, p.after) }, silent{})
		}
		return m.end(ctx, row, func(s Shim) (shim.Exit, error) { return s.StopIdle(ctx, DefaultStopTimeout, p.after) })
	})
	switch {
	case banger.CodeOf(err) == banger.Busy:
		m.Log.Info("an idle VM came to be used", "vm", u.row.ID)
	case err != nil && ctx.Err() == nil:
		m.Log.Warn("cannot end an idle VM", "vm", u.row.ID, "err", err)
	}
}
