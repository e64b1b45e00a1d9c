package qemu

import (
	"context"

	"banger"
	"banger/internal/vmm"
)

// Save implements vmm.Machine.
func (m *machine) Save(ctx context.Context, to vmm.Saved, frozen func() error) error {
	return banger.Errorf(banger.BadRequest, "cannot save the machine yet")
}
