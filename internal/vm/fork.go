package vm

import "context"

// Fork implements Service.
func (m *Manager) Fork(ctx context.Context, id string, f Fork, p Progress) (Forks, error) {
	return Forks{}, notYet()
}
