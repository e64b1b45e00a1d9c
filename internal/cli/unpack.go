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
// link inside leads a write out of what has that name (os.Root sees to that).
func unpack(r io.Reader, to placement, keepOwners bool) error {
	root, err := os.OpenRoot(to.dir)
	if err != nil {
		return banger.Errorf(banger.Internal, "cannot write to %s: %w", to.dir, err)
	}
	defer root.Close()
	u := &unpacker{root: root, name: to.name, owners: keepOwners}
	defer u.close()
	u.tree, _ = root.OpenRoot(to.name) // before the guest can put a link there
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
	name   string   // what all entries must be, or be under; "." is anything
	tree   *os.Root // what is at name, where that is a directory
	owners bool
	dirs   []arriving // to be given modes and times when all is inside
}

func (u *unpacker) close() {
	if u.tree != nil {
		u.tree.Close()
	}
}

// arriving is an entry of the stream, by its name in root.
type arriving struct {
	*tar.Header
	root *os.Root
	name string
}

func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	root, name, err := u.within(h.Name)
	if err != nil {
		return err
	}
	e := arriving{h, root, name}
	if h.Typeflag == tar.TypeDir {
		return u.directory(e)
	}
	if name == "." {
		return refused("it stands for the directory itself")
	}
	if err := e.clear(); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return u.file(e, content)
	case tar.TypeSymlink:
		if err := root.Symlink(h.Linkname, name); err != nil {
			return err
		}
		return u.own(e)
	case tar.TypeLink:
		return u.link(e)
	}
	return refused("devices and pipes are not copied to the host")
}

// within checks a name of the stream and says where it is. What lies under the name
// that was asked for is looked for in there alone: beside it are files of the user's.
func (u *unpacker) within(name string) (*os.Root, string, error) {
	clean := path.Clean(name)
	if !filepath.IsLocal(clean) || strings.Contains(name, "\x00") {
		return nil, "", refused("the VM sent a path that leads out of the destination")
	}
	if u.name == "." || clean == u.name {
		return u.root, clean, nil
	}
	below, ok := strings.CutPrefix(clean, u.name+"/")
	switch {
	case !ok:
		return nil, "", refused("the VM sent something that was not asked for")
	case u.tree == nil:
		return nil, "", refused("what it should be in is no directory")
	}
	return u.tree, below, nil
}

func refused(why string) error { return banger.Errorf(banger.Conflict, "%s", why) }

// clear makes room for an entry that is not a directory.
func (e arriving) clear() error {
	there, err := e.root.Lstat(e.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case there.IsDir():
		return refused("a directory is in its place")
	}
	return e.root.Remove(e.name)
}

func (u *unpacker) directory(e arriving) error {
	top := e.root == u.root && e.name == u.name
	if top && u.tree != nil {
		return nil // it was there before: it stays as it is
	}
	err := e.root.Mkdir(e.name, 0o700) // its mode may forbid writing into it
	if errors.Is(err, fs.ErrExist) {
		if top { // it may be a link of the guest's, to anywhere beside it
			return refused("a file is in its place")
		}
		err = e.isDirectory()
	}
	if err != nil {
		return err
	}
	u.dirs = append(u.dirs, e)
	if top {
		u.tree, err = u.root.OpenRoot(u.name)
	}
	return err
}

func (e arriving) isDirectory() error {
	there, err := e.root.Stat(e.name)
	if err == nil && !there.IsDir() {
		return refused("a file is in its place")
	}
	return err
}

func (u *unpacker) link(e arriving) error {
	root, target, err := u.within(e.Linkname)
	if err != nil {
		return err
	}
	if root != e.root {
		return refused("it is a link to the directory that it is in")
	}
	return root.Link(target, e.name)
}

func (u *unpacker) file(e arriving, content io.Reader) error {
	f, err := e.root.OpenFile(e.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, e.mode())
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if u.owners && err == nil {
		// An owner's change takes set-id bits away, so the mode comes after.
		err = errors.Join(f.Chown(e.Uid, e.Gid), f.Chmod(e.FileInfo().Mode()))
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return e.root.Chtimes(e.name, time.Time{}, e.ModTime)
}

// mode is what a new file gets, less the umask. Without -a a guest's file
// runs as nobody but its user.
func (e arriving) mode() fs.FileMode { return e.FileInfo().Mode().Perm() }

func (u *unpacker) own(e arriving) error {
	if !u.owners {
		return nil
	}
	return e.root.Lchown(e.name, e.Uid, e.Gid)
}

// finish gives directories their modes and times, innermost first.
func (u *unpacker) finish() error {
	for i := len(u.dirs) - 1; i >= 0; i-- {
		e := u.dirs[i]
		mode := e.mode() &^ umask()
		if u.owners {
			mode = e.FileInfo().Mode()
		}
		err := errors.Join(u.own(e), e.root.Chmod(e.name, mode), e.root.Chtimes(e.name, time.Time{}, e.ModTime))
		if err != nil {
			return banger.Errorf(banger.Internal, "%w", fmt.Errorf("cannot finish the directory %s: %w", e.Name, err))
		}
	}
	return nil
}
