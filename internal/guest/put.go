package guest

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"banger/internal/guestwire"

	"golang.org/x/sys/unix"
)

// put unpacks a tar stream.
func (a *agent) put(s *guestwire.Stream) {
	var c guestwire.Copy
	if err := json.Unmarshal(s.Body, &c); err != nil {
		s.Fail("bad_request", "bad request to copy: "+err.Error())
		return
	}
	err := a.unpack(c, s.Reader(guestwire.Stdin))
	if err == nil {
		s.Finish(nil)
		return
	}
	finish(s, nil, err)
}

func (a *agent) unpack(c guestwire.Copy, from io.Reader) error {
	u, err := a.machine.lookup(c.User, 0)
	if err != nil {
		return err
	}
	root, err := openDir(c.Path)
	if err != nil {
		return err
	}
	defer root.Close()
	x := &unpacker{root: root, dir: c.Path, keep: c.KeepOwner, uid: int(u.uid), gid: int(u.gid), me: os.Geteuid(), myGroup: os.Getegid()}
	defer x.leave()
	if err := x.all(tar.NewReader(from)); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, from) // what pads the stream
	return err
}

func openDir(dir string) (*os.Root, error) {
	if !filepath.IsAbs(dir) {
		return nil, failf("bad_request", "cannot copy to %q: it is not an absolute path", dir)
	}
	root, err := os.OpenRoot(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, failf("not_found", "cannot copy to %s: there is no such directory", dir)
	case err != nil:
		return nil, fmt.Errorf("cannot copy to %s: %w", dir, reason(err))
	}
	return root, nil
}

// unpacker writes the entries of a tar stream below a directory. Nothing in
// the stream leads it elsewhere: the Root refuses links that go out.
type unpacker struct {
	root     *os.Root
	dir      string // for people
	keep     bool   // owners as in the stream
	uid, gid int    // else these
	me       int    // whose files are made
	myGroup  int
	dirs     []*tar.Header
	buffer   []byte // one for all files: garbage costs an emulated guest dear

	// The directory that the last entry went to: the next mostly goes there
	// too, and need not find its way from the top.
	at   *os.Root
	path string
}

// in gives the directory that an entry lies in, made where it is not there, and
// the entry's name in it.
func (x *unpacker) in(name string) (dir *os.Root, base string, err error) {
	parent, base := path.Dir(name), path.Base(name)
	switch {
	case parent == ".":
		return x.root, base, nil
	case x.at != nil && parent == x.path:
		return x.at, base, nil
	}
	x.leave()
	dir, err = x.root.OpenRoot(parent)
	if errors.Is(err, os.ErrNotExist) {
		if err = x.makeAll(parent); err == nil {
			dir, err = x.root.OpenRoot(parent)
		}
	}
	if err == nil {
		x.at, x.path = dir, parent
	}
	return dir, base, err
}

// leave forgets the directory of the last entry.
func (x *unpacker) leave() {
	if x.at != nil {
		_ = x.at.Close()
		x.at = nil
	}
}

func (x *unpacker) all(in *tar.Reader) error {
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return x.finishDirs()
		}
		if err != nil {
			return failf("bad_request", "cannot copy to %s: %w", x.dir, err)
		}
		if err := x.entry(h, in); err != nil {
			return fmt.Errorf("cannot copy %q to %s: %w", h.Name, x.dir, err)
		}
	}
}

func (x *unpacker) entry(h *tar.Header, content io.Reader) error {
	name, err := localName(h.Name)
	if err != nil {
		return err
	}
	h.Name = name
	if h.Typeflag == tar.TypeReg && name != "." {
		return x.file(h, content)
	}
	x.leave() // what follows may lead elsewhere
	if err := x.makeWay(h); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return x.makeDir(h)
	case tar.TypeReg:
		return x.file(h, content)
	case tar.TypeSymlink:
		if err := x.root.Symlink(h.Linkname, name); err != nil {
			return reason(err)
		}
		return x.own(h, x.root.Lchown)
	case tar.TypeLink:
		target, err := localName(h.Linkname)
		if err != nil {
			return err
		}
		return x.root.Link(target, name)
	}
	return failf("bad_request", "an entry of type %q cannot be copied", string(h.Typeflag))
}

// localName refuses names that lead out of the directory.
func localName(name string) (string, error) {
	clean := path.Clean(strings.TrimPrefix(name, "/"))
	if !filepath.IsLocal(clean) {
		return "", failf("bad_request", "it leads out of the directory")
	}
	return clean, nil
}

// makeWay makes what leads to the entry and removes what is in its place. A
// directory never takes the place of a file, nor the other way round.
func (x *unpacker) makeWay(h *tar.Header) error {
	if h.Name == "." {
		if h.Typeflag != tar.TypeDir {
			return failf("bad_request", "it is the directory itself")
		}
		return nil
	}
	if parent := path.Dir(h.Name); parent != "." {
		if err := x.makeAll(parent); err != nil {
			return err
		}
	}
	old, err := x.root.Lstat(h.Name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case old.IsDir() && h.Typeflag == tar.TypeDir:
		return nil
	case old.IsDir():
		return failf("conflict", "a directory is there")
	case h.Typeflag == tar.TypeDir:
		// A link to a directory in the target serves as one.
		if at, err := x.root.Stat(h.Name); err == nil && at.IsDir() {
			return nil
		}
		return failf("conflict", "a file is there")
	}
	return x.root.Remove(h.Name)
}

// makeAll makes the directories on the way to an entry that no stream describes.
// They are whose the files are.
func (x *unpacker) makeAll(dir string) error {
	if x.keep || x.uid == x.me && x.gid == x.myGroup {
		return x.root.MkdirAll(dir, 0o755)
	}
	for i := range len(dir) + 1 {
		if i < len(dir) && dir[i] != '/' {
			continue
		}
		err := x.root.Mkdir(dir[:i], 0o755)
		if err == nil {
			err = x.root.Chown(dir[:i], x.uid, x.gid)
		}
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

func (x *unpacker) makeDir(h *tar.Header) error {
	if err := x.root.Mkdir(h.Name, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	x.dirs = append(x.dirs, h)
	return nil
}

// finishDirs gives directories their modes and times, which writing into them
// would hinder or spoil: the innermost first.
func (x *unpacker) finishDirs() error {
	for i := len(x.dirs) - 1; i >= 0; i-- {
		h := x.dirs[i]
		err := errors.Join(
			x.own(h, x.root.Chown),
			x.root.Chmod(h.Name, h.FileInfo().Mode()&^os.ModeDir),
			x.root.Chtimes(h.Name, time.Time{}, h.ModTime))
		if err != nil {
			return fmt.Errorf("cannot copy %q to %s: %w", h.Name, x.dir, err)
		}
	}
	return nil
}

func (x *unpacker) own(h *tar.Header, chown func(string, int, int) error) error {
	uid, gid := x.uid, x.gid
	if x.keep {
		uid, gid = h.Uid, h.Gid
	}
	if uid == x.me && gid == x.myGroup {
		return nil // as it was made
	}
	return chown(h.Name, uid, gid)
}

func (x *unpacker) file(h *tar.Header, content io.Reader) error {
	dir, base, err := x.in(h.Name)
	if err != nil {
		return err
	}
	f, err := dir.OpenFile(base, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) {
		if err = x.makeWay(h); err == nil {
			f, err = dir.OpenFile(base, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		}
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if x.buffer == nil {
		x.buffer = make([]byte, 16*block)
	}
	if err := writeSparse(f, content, h.Size, x.buffer); err != nil {
		return reason(err)
	}
	// An owner's change takes set-id bits and capabilities away, so they
	// come after it.
	err = errors.Join(
		x.own(h, func(_ string, uid, gid int) error { return f.Chown(uid, gid) }),
		f.Chmod(h.FileInfo().Mode()),
		x.setXattrs(f, h),
		f.Close())
	if err != nil {
		return err
	}
	return dir.Chtimes(base, time.Time{}, h.ModTime)
}

const block = 4096

var zeros [block]byte

// writeSparse writes content by way of buf to a new file and leaves blocks of zeros
// out. Only where they are its end does its size need to be set.
func writeSparse(f *os.File, content io.Reader, size int64, buf []byte) error {
	written := int64(0)
	for at := int64(0); at < size; {
		n, err := io.ReadFull(content, buf[:min(int64(len(buf)), size-at)])
		if err != nil {
			return err
		}
		for part := buf[:n]; len(part) > 0; {
			run := dataRun(part, zeros[:])
			if run > 0 {
				if _, err := f.WriteAt(part[:run], at); err != nil {
					return err
				}
				written = at + int64(run)
			} else {
				run = min(block, len(part))
			}
			at, part = at+int64(run), part[run:]
		}
	}
	if written == size {
		return nil
	}
	return f.Truncate(size)
}

// dataRun is the length of what comes before the first block of zeros.
func dataRun(b, zeros []byte) int {
	for i := 0; i < len(b); i += len(zeros) {
		if part := b[i:min(i+len(zeros), len(b))]; string(part) == string(zeros[:len(part)]) {
			return i
		}
	}
	return len(b)
}

const xattrRecord = "SCHILY.xattr."

// setXattrs sets the users' own attributes, and those that give rights where
// owners are kept as well.
func (x *unpacker) setXattrs(f *os.File, h *tar.Header) error {
	for record, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(record, xattrRecord)
		if !ok || !wantedXattr(name) || !x.keep && name == capability {
			continue
		}
		err := unix.Fsetxattr(int(f.Fd()), name, []byte(value), 0)
		if err != nil && err != unix.ENOTSUP {
			return fmt.Errorf("its attribute %s: %w", name, err)
		}
	}
	return nil
}

const capability = "security.capability"

func wantedXattr(name string) bool { return name == capability || strings.HasPrefix(name, "user.") }
