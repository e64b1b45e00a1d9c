package image

import (
	"context"
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/ext4"
	"banger/internal/rootfs"
)

// writeTree writes a tree of files into a file system at path, which is not
// synced: publish does that.
func writeTree(ctx context.Context, tree *rootfs.Tree, path string) error {
	err := ext4.FromEntries(ctx, path, ext4.Options{MaxBytes: rootfs.Default.Bytes, Unsynced: true}, func(add ext4.Add) error {
		return tree.Each(add)
	})
	var file *fs.PathError
	if err == nil || ctx.Err() != nil || errors.As(err, &file) || banger.CodeOf(err) != banger.Internal {
		return err
	}
	return banger.Errorf(banger.BadRequest, "it cannot be written as a file system: %w", err)
}

// fileError names what people can do something about.
func fileError(err error) error {
	if errors.Is(err, unix.ENOSPC) && banger.CodeOf(err) == banger.Internal {
		return banger.Errorf(banger.NoSpace, "there is no space left: %w", err)
	}
	return err
}
