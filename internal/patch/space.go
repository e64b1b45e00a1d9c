package patch

import (
	"errors"

	"golang.org/x/sys/unix"

	"banger"
)

// checkRoom refuses what the tree's file system has no room for. What is there stays
// until all that is new is written.
func (t *tree) checkRoom(todo []Change) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(t.root.Fd()), &fs); err != nil {
		return err
	}
	var needed int64
	for _, c := range todo {
		needed += c.Size
	}
	// In blocks: their number in bytes is more than fits on some file systems.
	if blocks := uint64(needed) / max(uint64(fs.Bsize), 1); fs.Blocks > 0 && blocks >= fs.Bavail && needed > 0 {
		return banger.Errorf(banger.NoSpace, "there is no room in %s: %s are needed, and %s are free",
			t.path, banger.ApproxSize(needed), banger.ApproxSize(int64(fs.Bavail)*int64(fs.Bsize)))
	}
	return nil
}

// asNoSpace gives a full disk its code.
func asNoSpace(err error) error {
	if isFull(err) {
		return banger.Errorf(banger.NoSpace, "%w", err)
	}
	return err
}

func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
