package layers

import (
	"context"

	"banger"
)

// Take makes dir to, which has no disk, hold a copy of the disk in dir from as
// it is now, which shares no file with it that anybody writes.
//
// What is below from's top becomes hard links. The top is cloned where the file
// system can, and copied if it has little data; else Take makes an empty layer
// on top of from and calls freeze with its name, and what was the top becomes a
// hard link too. freeze, such as vmm.Machine.FreezeDisk, returns once nobody
// writes there any more; nil stands for a disk that no machine has. With
// writable, to gets an empty layer of its own where its top is a hard link.
//
// Until Take returns, or has called freeze, the disk must stand still. Nothing is
// synced. Where Take fails, to has no disk; from keeps the new layer if freeze
// has taken it, or failed with not_running.
func Take(ctx context.Context, from, to string, writable bool, freeze func(name string) error) error {
	return banger.Errorf(banger.Internal, "cannot take a disk: not yet")
}
