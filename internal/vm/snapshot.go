package vm

import (
	"context"

	"banger"
)

// CreateSnapshot implements Service.
func (m *Manager) CreateSnapshot(ctx context.Context, id, name string, p Progress) (banger.Snapshot, error) {
	return banger.Snapshot{}, notYet()
}

// Snapshots implements Service.
func (m *Manager) Snapshots(ctx context.Context, id string) ([]banger.Snapshot, error) {
	return nil, notYet()
}

// RestoreSnapshot implements Service.
func (m *Manager) RestoreSnapshot(ctx context.Context, id, snapshot string, force bool, p Progress) (View, error) {
	return View{}, notYet()
}

// DeleteSnapshot implements Service.
func (m *Manager) DeleteSnapshot(ctx context.Context, id, snapshot string) error {
	return notYet()
}
