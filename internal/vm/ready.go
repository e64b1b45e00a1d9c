package vm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"banger"
	"banger/internal/shim"
)

// errSlow ends a wait for a guest.
var errSlow = errors.New("the wait was too long")

// awaitReady waits until the guest answers.
func (m *Manager) awaitReady(ctx context.Context, row banger.VM, l *live, p Progress) error {
	p.Stage("wait for guest")
	status, within, err := m.awaitAnswer(ctx, l)
	logs := fmt.Sprintf("banger vm logs %s", row.Name)
	switch {
	case errors.Is(err, errSlow):
		return banger.Errorf(banger.Unavailable, "its guest did not come up within %s; the VM is kept", within).
			Hint("%s", logs).Hint("banger vm delete -f %s", row.Name)
	case err != nil:
		return banger.Errorf(banger.Cancelled, "%w", err)
	case status == nil:
		return banger.Errorf(banger.Unavailable, "%s", errPowerCut).Hint("%s", logs)
	case status.State == shim.Ended && status.Exit != nil:
		e := banger.Errorf(banger.Unavailable, "%s", explainExit(*status.Exit))
		if row.Spec.Ephemeral {
			return e
		}
		return e.Hint("%s", logs)
	}
	return nil
}

// awaitAnswer waits until the guest answers or will not, and says how long it waited at most: longer
// on a host that has so much to do that the VMM waits too.
func (m *Manager) awaitAnswer(ctx context.Context, l *live) (status *shim.Status, within time.Duration, err error) {
	began := time.Now()
	for within = m.readyTimeout; ; {
		wait, cancel := context.WithTimeoutCause(ctx, within-time.Since(began), errSlow)
		status, err = l.await(wait, func(s shim.Status) bool {
			return s.State == shim.Running || s.State == shim.Paused || s.State == shim.Ended
		})
		cancel()
		longer := m.readyTimeout + m.grace(l.vmmPID(), m.readyTimeout)
		if !errors.Is(err, errSlow) || longer <= within {
			return status, within, err
		}
		within = longer
	}
}

// vmmPID is its VMM's, or -1.
func (l *live) vmmPID() int {
	status, _, _ := l.seen()
	if status == nil || status.VMMPID == 0 {
		return -1
	}
	return status.VMMPID
}
