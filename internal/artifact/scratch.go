package artifact

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Scratch is a directory for what is needed for a while, in one that several
// processes use. It is locked as long as the process lives, so that others can tell
// one that a killed process left.
type Scratch struct {
	Dir  string
	lock *os.File
}

// heldPrefix begins the names of directories that are locked while they are in use.
// Without a lock earlier builds made theirs.
const heldPrefix = scratchPrefix + "held-"

// NewScratch makes one in dir, which it makes too, and removes those of the same name
// that killed processes left.
func NewScratch(dir, name string) (*Scratch, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	clearNamed(dir, name)
	for {
		made, err := os.MkdirTemp(dir, heldPrefix+name+"-*")
		if err != nil {
			return nil, err
		}
		lock, err := hold(made, 0)
		if err == nil {
			return &Scratch{made, lock}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) { // taken for a leftover before it was locked
			_ = os.Remove(made)
			return nil, err
		}
	}
}

// clearNamed leaves to a sweep what it cannot remove, or what is another user's.
func clearNamed(dir, name string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if path := filepath.Join(dir, e.Name()); strings.HasPrefix(e.Name(), heldPrefix+name+"-") && stale(path) {
			_ = clearOne(path)
		}
	}
}

// Close removes the directory.
func (s *Scratch) Close() {
	_ = os.RemoveAll(s.Dir)
	_ = s.lock.Close()
}

// hold locks a directory. One that was removed meanwhile is fs.ErrNotExist.
func hold(dir string, how int) (*os.File, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|how); err != nil {
		err = &fs.PathError{Op: "lock", Path: dir, Err: err}
	} else if _, err = os.Lstat(dir); err == nil {
		return f, nil
	}
	_ = f.Close()
	return nil, err
}

// ClearStale removes what Stale lists, unless it has come into use.
func ClearStale(dir string) (all error) {
	for _, path := range Stale(dir) {
		all = errors.Join(all, clearOne(path))
	}
	return all
}

func clearOne(path string) error {
	if !isHeld(path) {
		return os.RemoveAll(path)
	}
	lock, err := hold(path, unix.LOCK_NB)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(lock.Fd()), &st); err != nil || int(st.Uid) != os.Getuid() {
		return err
	}
	return os.RemoveAll(path)
}

func isHeld(path string) bool { return strings.HasPrefix(filepath.Base(path), heldPrefix) }
