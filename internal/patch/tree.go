package patch

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// tree is a directory of the host, reached through its descriptor. No step below
// it follows a symlink, whatever became of the directories meanwhile: what is
// under one is not in the tree.
type tree struct {
	root *os.File
	path string

	modeless bool // permissions say nothing of who may execute a file
}

func openTree(dir string) (*tree, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &tree{root: f, path: dir}, nil
}

func (t *tree) close() { t.root.Close() }

// blocked says that a path cannot be reached since something on the way is no
// directory.
type blocked struct{ by string }

func (b *blocked) Error() string { return b.by + " is no directory" }

// dir opens the directory of a path, "." for the top. It fails with a *blocked
// or fs.ErrNotExist.
func (t *tree) dir(dir string) (*os.File, error) {
	return t.walk(dir, false)
}

// makeDir is dir, and makes what is missing.
func (t *tree) makeDir(dir string) (*os.File, error) {
	return t.walk(dir, true)
}

func (t *tree) walk(dir string, create bool) (*os.File, error) {
	fd, err := openDir(int(t.root.Fd()), ".")
	if err != nil || dir == "." {
		return asFile(fd, dir, err)
	}
	done := ""
	for name := range strings.SplitSeq(dir, "/") {
		if create {
			err = unix.Mkdirat(fd, name, 0o777)
		}
		if err != nil && !errors.Is(err, unix.EEXIST) {
			_ = unix.Close(fd)
			return nil, &fs.PathError{Op: "mkdir", Path: path.Join(done, name), Err: err}
		}
		next, err := openDir(fd, name)
		_ = unix.Close(fd)
		done = path.Join(done, name)
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return nil, &blocked{done}
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: done, Err: err}
		}
		fd = next
	}
	return asFile(fd, dir, nil)
}

func openDir(at int, name string) (int, error) {
	for {
		fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

func asFile(fd int, name string, err error) (*os.File, error) {
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// in runs f with the descriptor of the directory of a path, and its name there.
func (t *tree) in(p string, f func(dir int, name string) error) error {
	d, err := t.dir(path.Dir(p))
	if err != nil {
		return err
	}
	defer d.Close()
	if err := f(int(d.Fd()), path.Base(p)); err != nil {
		return &fs.PathError{Op: "change", Path: p, Err: err}
	}
	return nil
}

// move renames within the tree. With noReplace it fails where the new path is
// there, under this name or one that the file system takes for it.
func (t *tree) move(from, to string, noReplace bool) error {
	return t.in(from, func(fromDir int, fromName string) error {
		return t.in(to, func(toDir int, toName string) error {
			if noReplace {
				return renameNew(fromDir, fromName, toDir, toName)
			}
			return unix.Renameat(fromDir, fromName, toDir, toName)
		})
	})
}

// exchange puts two things in each other's places.
func (t *tree) exchange(one, other string) error {
	return t.in(one, func(oneDir int, oneName string) error {
		return t.in(other, func(otherDir int, otherName string) error {
			return unix.Renameat2(oneDir, oneName, otherDir, otherName, unix.RENAME_EXCHANGE)
		})
	})
}

// oneFile says whether two paths are names of one file.
func (t *tree) oneFile(one, other string) bool {
	a, okA := t.identity(one)
	b, okB := t.identity(other)
	return okA && okB && a == b
}

func (t *tree) identity(p string) (id [2]uint64, ok bool) {
	var st unix.Stat_t
	err := t.in(p, func(dir int, name string) error { return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return [2]uint64{uint64(st.Dev), st.Ino}, err == nil
}

func renameNew(fromDir int, from string, toDir int, to string) error {
	err := unix.Renameat2(fromDir, from, toDir, to, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	// The file system cannot promise it: look first.
	if err := unix.Fstatat(toDir, to, new(unix.Stat_t), unix.AT_SYMLINK_NOFOLLOW); !errors.Is(err, unix.ENOENT) {
		return errors.Join(unix.EEXIST, err)
	}
	return unix.Renameat(fromDir, from, toDir, to)
}

func (t *tree) remove(p string) error {
	return t.in(p, func(dir int, name string) error { return unix.Unlinkat(dir, name, 0) })
}

// prune removes the directories above a path, the innermost first, as long as
// they are empty and not among those to keep. Each is told of before.
func (t *tree) prune(p string, keep map[string]bool, tell func(dir string)) {
	for dir := path.Dir(p); dir != "." && !keep[dir]; dir = path.Dir(dir) {
		tell(dir)
		if t.in(dir, func(at int, name string) error { return unix.Unlinkat(at, name, unix.AT_REMOVEDIR) }) != nil {
			return
		}
	}
}

// mode is a directory's permissions, or 0.
func (t *tree) mode(dir string) uint32 {
	d, err := t.dir(dir)
	if err != nil {
		return 0
	}
	defer d.Close()
	var st unix.Stat_t
	_ = unix.Fstat(int(d.Fd()), &st)
	return st.Mode & 0o7777
}

// chmod changes a directory's permissions.
func (t *tree) chmod(dir string, mode uint32) error {
	d, err := t.dir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Fchmod(int(d.Fd()), mode)
}
