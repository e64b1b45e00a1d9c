package firecracker

import (
	"context"
	"errors"
)

// Pause implements vmm.Machine.
func (m *machine) Pause(ctx context.Context) error {
	m.turning.Lock()
	defer m.turning.Unlock()
	running, err := m.running(ctx)
	if err != nil || !running {
		return err
	}
	m.announced = false
	return m.call(ctx, request{"PATCH", "/vm", vmState{paused}}, nil)
}

// Resume implements vmm.Machine.
//
// When it resumes a machine Firecracker takes it that the guest will hear of a reset of its vsock,
// and lets nothing more in until it has; but it only tells the guest in a snapshot. So without
// one, or where the guest runs already, nothing would ever come in again.
func (m *machine) Resume(ctx context.Context) error {
	m.turning.Lock()
	defer m.turning.Unlock()
	running, err := m.running(ctx)
	if err != nil || running {
		return err
	}
	if !m.announced {
		if err := m.announceReset(ctx); err != nil {
			return err
		}
	}
	err = m.call(ctx, request{"PATCH", "/vm", vmState{resumed}}, nil)
	// What it was, the guest forgets; a connection that is made before it has waits.
	m.link.Renew()
	return err
}

// nowhere is a path where nothing can be made.
const nowhere = "/proc/self/nowhere"

// announceReset takes a snapshot of all but memory, which is what has the guest told. That there is
// no place for memory Firecracker notices last, when it has written the state: by that this failure is
// told from any other, and not by its words, which are nobody's promise.
func (m *machine) announceReset(ctx context.Context) error {
	if err := m.wires.state.Truncate(0); err != nil {
		return err
	}
	err := m.call(ctx, request{"PUT", "/snapshot/create", snapshotCreate{
		Type: diff, State: inherited(fdSaveState), Memory: nowhere,
	}}, nil)
	var refused *fault
	if err != nil && !errors.As(err, &refused) {
		return err
	}
	if info, err2 := m.wires.state.Stat(); err2 != nil || info.Size() == 0 {
		return errors.Join(errors.New("the guest's vsock is not reset by Firecracker"), err, err2)
	}
	m.announced = true
	return nil
}
