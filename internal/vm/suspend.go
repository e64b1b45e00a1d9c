package vm

import (
	"context"

	"banger"
)

func notYet() error {
	return banger.Errorf(banger.Unavailable, "this banger cannot do that yet")
}

// Suspend implements Service.
func (m *Manager) Suspend(ctx context.Context, id string, p Progress) (View, error) {
	return View{}, notYet()
}
