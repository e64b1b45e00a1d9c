package shim

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"banger/internal/guestlink"
)

// plantSeed gives the guest the user's files that every new VM gets, before
// anybody else can use it. They stay on its disk: once is enough.
func (s *supervisor) plantSeed(link *guestlink.Link) error {
	f, err := os.Open(s.dir.Seed())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	ctx := context.Background()
	if err := errors.Join(link.Put(ctx, "/", f), link.Sync(ctx)); err != nil {
		return err
	}
	return os.Remove(s.dir.Seed())
}
