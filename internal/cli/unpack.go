package cli

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"banger"
)

// unpack writes a guest's tar stream where it was asked to go. The stream is
// not trusted: every entry must lie under the name that was asked for, and no
// link inside leads a write out of the directory (os.Root sees to that).
func unpack(r io.Reader, to placement, keepOwners bool) error {
	root, err := os.OpenRoot(to.dir)
	if err != nil {
		return banger.Errorf(banger.Internal, "cannot write to %s: %w", to.dir, err)
	}
	defer root.Close()
	u := &unpacker{root: root, name: to.name, owners: keepOwners}
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return u.finish()
		}
		if err != nil {
			return err // the guest's side says more
		}
		if err := u.entry(h, in); err != nil {
			return banger.Errorf(banger.CodeOf(err), "cannot write %s: %w", filepath.Join(to.dir, printable(h.Name)), err)
		}
	}
}

type unpacker struct {
	root   *os.Root
	name   string // what all entries must be, or be under; "." is anything
	owners bool
	dirs   []*tar.Header // to be given modes and times when all is inside
}

func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	name, err := u.within(h.Name)
	if err != nil {
		return err
	}
	h.Name = name
	if h.Typeflag == tar.TypeDir {
		return u.directory(h)
	}
	if name == "." {
		return refused("it stands for the directory itself")
	}
	if err := u.clear(name); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return u.file(h, content)
	case tar.TypeSymlink:
		if err := u.root.Symlink(h.Linkname, name); err != nil {
			return err
		}
		return u.own(h)
	case tar.TypeLink:
		target, err := u.within(h.Linkname)
		if err != nil {
			return err
		}
		return u.root.Link(target, name)
	}
	return refused("devices and pipes are not copied to the host")
}

// within checks a name of the stream.
func (u *unpacker) within(name string) (string, error) {
	clean := path.Clean(name)
	if !filepath.IsLocal(clean) || strings.Contains(name, "\x00") {
		return "", refused("the VM sent a path that leads out of the destination")
	}
	if u.name != "." && clean != u.name && !strings.HasPrefix(clean, u.name+"/") {
		return "", refused("the VM sent something that was not asked for")
	}
	return clean, nil
}

func refused(why string) error { return banger.Errorf(banger.Conflict, "%s", why) }

// clear makes room for an entry that is not a directory.
func (u *unpacker) clear(name string) error {
	there, err := u.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case there.IsDir():
		return refused("a directory is in its place")
	}
	return u.root.Remove(name)
}

func (u *unpacker) directory(h *tar.Header) error {
	u.dirs = append(u.dirs, h)
	err := u.root.Mkdir(h.Name, 0o700) // its mode may forbid writing into it
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	there, err := u.root.Stat(h.Name)
	if err == nil && !there.IsDir() {
		return refused("a file is in its place")
	}
	if err == nil && h.Name == u.name {
		u.dirs = u.dirs[:len(u.dirs)-1] // it was there before: it stays as it is
	}
	return err
}

func (u *unpacker) file(h *tar.Header, content io.Reader) error {
	f, err := u.root.OpenFile(h.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, u.mode(h))
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if u.owners && err == nil {
		// An owner's change takes set-id bits away, so the mode comes after.
		err = errors.Join(f.Chown(h.Uid, h.Gid), f.Chmod(h.FileInfo().Mode()))
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return u.root.Chtimes(h.Name, time.Time{}, h.ModTime)
}

// mode is what a new file gets, less the umask. Without -a a guest's file
// runs as nobody but its user.
func (u *unpacker) mode(h *tar.Header) fs.FileMode { return h.FileInfo().Mode().Perm() }

func (u *unpacker) own(h *tar.Header) error {
	if !u.owners {
		return nil
	}
	return u.root.Lchown(h.Name, h.Uid, h.Gid)
}

// finish gives directories their modes and times, innermost first.
func (u *unpacker) finish() error {
	for i := len(u.dirs) - 1; i >= 0; i-- {
		h := u.dirs[i]
		mode := u.mode(h) &^ umask()
		if u.owners {
			mode = h.FileInfo().Mode()
		}
		err := errors.Join(u.own(h), u.root.Chmod(h.Name, mode), u.root.Chtimes(h.Name, time.Time{}, h.ModTime))
		if err != nil {
			return banger.Errorf(banger.Internal, "%w", fmt.Errorf("cannot finish the directory %s: %w", h.Name, err))
		}
	}
	return nil
}
