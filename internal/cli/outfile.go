package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"banger"
)

// writeWhole writes a file that is there in the end as it should be, or as it was
// before, whenever banger ends. What is no plain file is written to as it is.
func writeWhole(file string, write func(io.Writer) error) error {
	if there, err := filepath.EvalSymlinks(file); err == nil {
		file = there // a link stays one
	}
	info, err := os.Stat(file)
	switch {
	case err == nil && info.IsDir():
		return banger.Errorf(banger.BadRequest, "cannot write %s: it is a directory", file)
	case err == nil && !info.Mode().IsRegular():
		return writeInto(file, write)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return cannotWrite(file, err)
	}
	f, err := nameless(filepath.Dir(file))
	if err != nil {
		return cannotWrite(file, err)
	}
	defer f.Close()
	if err := write(f); err != nil {
		return err
	}
	if info != nil {
		err = f.Chmod(info.Mode().Perm())
	}
	if err = errors.Join(err, f.Sync()); err == nil {
		err = name(f, file)
	}
	return cannotWrite(file, err)
}

func cannotWrite(file string, err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return banger.Wrap(err, "cannot write %s", file)
}

func writeInto(file string, write func(io.Writer) error) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return cannotWrite(file, err)
	}
	if err := write(f); err != nil {
		f.Close()
		return err
	}
	return cannotWrite(file, f.Close())
}

// spool writes something once it is there as a whole, or nothing. Until then it is in a
// directory, since it may be larger than memory.
func spool(dir string, to io.Writer, write func(io.Writer) error) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := nameless(dir)
	if err != nil {
		return cannotWrite(dir, err)
	}
	defer f.Close()
	if f.Name() != dir {
		defer os.Remove(f.Name())
	}
	if err = write(f); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err == nil {
		_, err = io.Copy(to, f)
	}
	return err
}

// nameless makes a file without a name, which is gone when its process is. Where
// the file system has none, it has a hidden name.
func nameless(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR, 0o666)
	if err == nil || !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return f, err
	}
	return named(dir)
}

// unfinished are the names of files that are being written, each locked by whoever
// writes it.
const unfinished = ".banger-*.part"

// named makes a file with a hidden name, and removes those that nobody writes any
// more.
func named(dir string) (*os.File, error) {
	removeUnfinished(dir)
	f, err := os.CreateTemp(dir, unfinished)
	if err == nil {
		err = errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), f.Chmod(0o666&^umask()))
	}
	return f, err
}

// unfinishedAge is how long a file is left alone that is not locked: it may have been
// made a moment ago.
const unfinishedAge = time.Minute

// removeUnfinished removes what others left that were killed.
func removeUnfinished(dir string) {
	left, _ := os.ReadDir(dir)
	for _, e := range left {
		file := filepath.Join(dir, e.Name())
		if ours, _ := filepath.Match(unfinished, e.Name()); !ours {
			continue
		}
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || time.Since(info.ModTime()) < unfinishedAge {
			continue
		}
		f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.Remove(file)
		}
		f.Close()
	}
}

// name gives a nameless file its name, in place of another's.
func name(f *os.File, file string) error {
	if filepath.Dir(f.Name()) == filepath.Dir(file) && f.Name() != filepath.Dir(file) {
		return os.Rename(f.Name(), file)
	}
	link := func(to string) error {
		return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW)
	}
	err := link(file)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	// Only a rename can replace.
	removeUnfinished(filepath.Dir(file))
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	temp := filepath.Join(filepath.Dir(file), fmt.Sprintf(".banger-%d.part", os.Getpid()))
	if err := link(temp); err != nil {
		return err
	}
	if err := os.Rename(temp, file); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return nil
}
