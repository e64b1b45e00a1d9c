package qemu

import (
	"context"

	"banger"
	"banger/internal/vmm"
)

// Restore implements vmm.Driver.
func (Driver) Restore(ctx context.Context, cfg vmm.Config, from vmm.Source, out vmm.IO) (vmm.Machine, error) {
	return nil, banger.Errorf(banger.BadRequest, "cannot restore a machine yet")
}
