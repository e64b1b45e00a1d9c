// Package artifact makes directories of large files that are built once and
// then only read: kernels and images.
//
// A build happens under a lock, in a directory of its own on the same file
// system, and appears under its final name whole and on disk, or not at all.
// What the files mean is the caller's business.
package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lockPoll is how often a lock held by another process is tried again. A
// blocking flock could not be given up when ctx ends.
const lockPoll = 50 * time.Millisecond

// Lock takes the lock file at path, which it creates and which stays. It
// waits while another process, or another call in this one, holds it.
func Lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := LockFile(ctx, path)
	if err != nil {
		return nil, err
	}
	return func() { Unlock(f) }, nil
}

// LockFile is Lock for those who hand the lock on: a child process that
// inherits the file holds the lock too, should this process die.
func LockFile(ctx context.Context, path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := waitForLock(ctx, f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func waitForLock(ctx context.Context, f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return &fs.PathError{Op: "lock", Path: f.Name(), Err: err}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lockPoll):
		}
	}
}

// Unlock releases the lock for every process that holds f, and closes f.
func Unlock(f *os.File) {
	_ = unix.Flock(int(f.Fd()), unix.LOCK_UN) // fails only for a closed file
	f.Close()
}

// Publish makes the directory built appear as final: everything in it is
// synced, it is renamed, and the rename is synced. A final that exists is
// left as it is and built is removed: both hold the same content.
func Publish(built, final string) error {
	if err := syncTree(built); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(final), 0o700); err != nil {
		return err
	}
	err := os.Rename(built, final)
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		return os.RemoveAll(built)
	}
	if err != nil {
		return err
	}
	return syncPath(filepath.Dir(final))
}

// Replace is Publish for a final that is damaged, which goes. At no moment is there
// neither.
func Replace(built, final string) error {
	if err := syncTree(built); err != nil {
		return err
	}
	if err := exchange(built, final); err != nil {
		return err
	}
	return errors.Join(syncPath(filepath.Dir(final)), os.RemoveAll(built))
}

// exchange puts two directories in each other's places, one after the other where the
// file system cannot do both at once.
func exchange(one, other string) error {
	err := unix.Renameat2(unix.AT_FDCWD, one, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	aside := one + ".old"
	if err := os.Rename(other, aside); err != nil {
		return err
	}
	if err := os.Rename(one, other); err != nil {
		return errors.Join(err, os.Rename(aside, other))
	}
	return os.Rename(aside, one)
}

// WriteFile writes a small file atomically and durably.
func WriteFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return Rename(f.Name(), path)
}

// Rename renames within one directory, or into another, and syncs it.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncPath(filepath.Dir(to))
}

// Sync has what was written to a file on disk when it returns.
func Sync(path string) error { return syncPath(path) }

// SHA256 hashes the file at path.
func SHA256(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, Reader(ctx, f)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Reader reads from r until ctx ends.
func Reader(ctx context.Context, r io.Reader) io.Reader { return ctxReader{ctx, r} }

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() && !d.Type().IsRegular() {
			return err
		}
		return syncPath(path)
	})
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
