package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"banger"
	"banger/internal/artifact"

	"golang.org/x/sys/unix"
)

// unnamed is a file that has no name until it is whole, so that nothing is left of
// one whose writer is killed. Where the file system has no such files it has a
// temporary name.
type unnamed struct {
	*os.File
	path string // what it becomes
	name string // temporary, or ""
}

func newUnnamed(path string) (*unnamed, error) {
	dir := filepath.Dir(path)
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return &unnamed{File: os.NewFile(uintptr(fd), path), path: path}, nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return nil, &fs.PathError{Op: "create", Path: path, Err: err}
	}
	f, err := os.CreateTemp(dir, ".tmp-pack-*")
	if err != nil {
		return nil, err
	}
	return &unnamed{File: f, path: path, name: f.Name()}, nil
}

// publish gives the file its name, in the place of what had it.
func (u *unnamed) publish() error {
	if err := u.Sync(); err != nil {
		return err
	}
	if u.name == "" {
		// A name that is taken cannot be given, only taken over.
		u.name = filepath.Join(filepath.Dir(u.path), ".tmp-pack-"+banger.NewID())
		err := unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(int(u.Fd())), unix.AT_FDCWD, u.name, unix.AT_SYMLINK_FOLLOW)
		if err != nil {
			u.name = ""
			return &fs.PathError{Op: "link", Path: u.path, Err: err}
		}
	}
	if err := artifact.Rename(u.name, u.path); err != nil {
		return err
	}
	u.name = ""
	return nil
}

// drop forgets what was not published.
func (u *unnamed) drop() {
	_ = u.Close()
	if u.name != "" {
		_ = os.Remove(u.name)
	}
}
