package layers

import (
	"context"

	"banger"
)

// Flatten makes the disk in dir one raw file again: in place where no other
// directory has a link to its base, else in a new file. It may be interrupted
// anywhere and called again: at every moment the files there are make the same
// disk.
func Flatten(ctx context.Context, dir string) error {
	return banger.Errorf(banger.Internal, "cannot flatten a disk: not yet")
}
