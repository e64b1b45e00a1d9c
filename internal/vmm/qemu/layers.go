package qemu

import (
	"context"

	"banger"
)

// FreezeDisk implements vmm.Machine.
func (m *machine) FreezeDisk(ctx context.Context, serial, overlay string) error {
	return banger.Errorf(banger.Internal, "cannot freeze the disk %s: not yet", serial)
}
