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
	"syscall"

	"golang.org/x/sys/unix"
)

// packer writes a local tree as a tar stream.
type packer struct {
	follow  bool     // a link that is the source itself is followed
	skipped []string // sockets, which mean nothing elsewhere

	tw    *tar.Writer
	links map[inode]string // where a file with several links went first
}

type inode struct{ dev, ino uint64 }

// pack writes what is at source under name; "." puts a directory's contents
// at the top.
func (p *packer) pack(w io.Writer, source, name string) error {
	p.tw, p.links = tar.NewWriter(w), map[inode]string{}
	stat := os.Lstat
	if p.follow || contentsOnly(source) {
		stat = os.Stat
	}
	info, err := stat(source)
	if err != nil {
		return err
	}
	if err := p.tree(filepath.Clean(source), name, info); err != nil {
		return err
	}
	return p.tw.Close()
}

func (p *packer) tree(local, name string, info fs.FileInfo) error {
	if err := p.entry(local, name, info); err != nil || !info.IsDir() {
		return err
	}
	entries, err := os.ReadDir(local)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return err
		}
		if err := p.tree(filepath.Join(local, e.Name()), path.Join(name, e.Name()), info); err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) entry(local, name string, info fs.FileInfo) error {
	if info.Mode().Type() == fs.ModeSocket {
		p.skipped = append(p.skipped, local)
		return nil
	}
	if info.Mode().IsRegular() {
		return p.file(local, name, info)
	}
	target := ""
	if info.Mode().Type() == fs.ModeSymlink {
		var err error
		if target, err = os.Readlink(local); err != nil {
			return err
		}
	}
	h, err := header(info, name, target)
	if err != nil {
		return err
	}
	return p.tw.WriteHeader(h)
}

func (p *packer) file(local, name string, info fs.FileInfo) error {
	if first, ok := p.linked(info, name); ok {
		h, err := header(info, name, "")
		if err != nil {
			return err
		}
		h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		return p.tw.WriteHeader(h)
	}
	// Opened before its header is written, so that one that may not be read
	// spoils nothing; not through a link that has just taken its place, and
	// without waiting for the writer of a pipe that has.
	f, err := os.OpenFile(local, os.O_RDONLY|unix.O_NONBLOCK|p.noFollow(), 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s changed into something else while it was read", local)
	}
	h, err := header(info, name, "")
	if err != nil {
		return err
	}
	if err := p.tw.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyN(p.tw, f, h.Size)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s shrank from %d to %d bytes while it was read", local, h.Size, n)
	}
	return err
}

func (p *packer) noFollow() int {
	if p.follow {
		return 0
	}
	return unix.O_NOFOLLOW
}

// linked says under which name a file with several links went already.
func (p *packer) linked(info fs.FileInfo, name string) (first string, ok bool) {
	st, isStat := info.Sys().(*syscall.Stat_t)
	if !isStat || st.Nlink < 2 {
		return "", false
	}
	key := inode{st.Dev, st.Ino}
	if first, ok = p.links[key]; !ok {
		p.links[key] = name
	}
	return first, ok
}

// header describes an entry by numbers: names of owners mean nothing
// elsewhere, and looking them up is slow.
func header(info fs.FileInfo, name, target string) (*tar.Header, error) {
	h, err := tar.FileInfoHeader(numbersOnly{info}, target)
	if err != nil {
		return nil, err
	}
	h.Name = name
	if info.IsDir() {
		h.Name += "/"
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		h.Uid, h.Gid = int(st.Uid), int(st.Gid)
	}
	h.Format = tar.FormatPAX
	return h, nil
}

// numbersOnly hides the system's record from archive/tar, which would look up
// names for it; devices keep theirs, as their numbers are there.
type numbersOnly struct{ fs.FileInfo }

func (n numbersOnly) Uname() (string, error) { return "", nil }
func (n numbersOnly) Gname() (string, error) { return "", nil }
