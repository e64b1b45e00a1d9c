package guest

import (
	"archive/tar"
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"

	"banger/internal/guestwire"

	"golang.org/x/sys/unix"
)

// get packs a path as a tar stream.
func (a *agent) get(s *guestwire.Stream) {
	var c guestwire.Copy
	if err := json.Unmarshal(s.Body, &c); err != nil {
		s.Fail("bad_request", "bad request to copy: "+err.Error())
		return
	}
	err := pack(c, s.Writer(0))
	if err == nil {
		s.Finish(nil)
		return
	}
	finish(s, nil, err)
}

func pack(c guestwire.Copy, to io.Writer) error {
	if !filepath.IsAbs(c.Path) {
		return failf("bad_request", "cannot copy %q: it is not an absolute path", c.Path)
	}
	from := filepath.Clean(c.Path)
	if c.Follow {
		real, err := filepath.EvalSymlinks(from)
		if err != nil {
			return cannotCopy(c.Path, err)
		}
		from = real
	}
	name := c.Name
	if name == "" {
		name = path.Base(c.Path)
	}
	if name == "/" {
		name = "."
	}
	frames := bufio.NewWriterSize(to, guestwire.MaxData) // not a frame for each header
	p := &packer{out: tar.NewWriter(frames), names: map[inode]string{}, buf: make([]byte, 64<<10), without: c.Without}
	if c.OneSystem {
		info, err := os.Lstat(from)
		if err != nil {
			return cannotCopy(c.Path, err)
		}
		p.only, p.system = true, sysStat(info).Dev
	}
	if err := p.tree(from, name); err != nil {
		return cannotCopy(c.Path, err)
	}
	return errors.Join(p.out.Close(), frames.Flush())
}

func cannotCopy(name string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return failf("not_found", "cannot copy %s: there is no such file or directory", name)
	}
	return fmt.Errorf("cannot copy %s: %w", name, err)
}

type inode struct{ dev, ino uint64 }

// packer writes trees to a tar stream.
type packer struct {
	out   *tar.Writer
	names map[inode]string // of files with several links
	buf   []byte

	without []string // these files, and what is in these directories
	only    bool     // what is of this file system
	system  uint64
}

// leaves says whether what is at from, or in it, is to be left out. An overlay
// has its own device number at its directories only.
func (p *packer) leaves(from string, info os.FileInfo) bool {
	return slices.Contains(p.without, from) || p.only && info.IsDir() && sysStat(info).Dev != p.system
}

// tree packs what is at from, under a name, in the order of the names.
func (p *packer) tree(from, name string) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	leave := p.leaves(from, info)
	if leave && !info.IsDir() {
		return nil
	}
	if err := p.entry(from, name, info); err != nil || !info.IsDir() || leave {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		err := p.tree(filepath.Join(from, e.Name()), path.Join(name, e.Name()))
		if err != nil && !errors.Is(err, os.ErrNotExist) { // it went meanwhile
			return err
		}
	}
	return nil
}

func (p *packer) entry(from, name string, info os.FileInfo) error {
	if info.Mode().Type() == os.ModeSocket {
		return nil // means nothing elsewhere
	}
	h, err := p.header(from, name, info)
	if err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg {
		return p.out.WriteHeader(h)
	}
	f, err := os.OpenFile(from, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	addXattrs(f, h)
	if err := p.out.WriteHeader(h); err != nil {
		return err
	}
	return p.content(f, h.Size)
}

func (p *packer) header(from, name string, info os.FileInfo) (*tar.Header, error) {
	var target string
	if info.Mode().Type() == os.ModeSymlink {
		var err error
		if target, err = os.Readlink(from); err != nil {
			return nil, err
		}
	}
	h, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return nil, err
	}
	h.Format = tar.FormatPAX // has times to the nanosecond, and no limits
	h.Name = name
	if info.IsDir() {
		h.Name += "/"
		return h, nil
	}
	st := sysStat(info)
	if st.Nlink < 2 {
		return h, nil
	}
	at := inode{st.Dev, st.Ino}
	if first, ok := p.names[at]; ok {
		h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
	} else {
		p.names[at] = h.Name
	}
	return h, nil
}

// content sends size bytes, whatever happens to the file meanwhile: one that
// shrinks is filled up with zeros, so that the stream stays whole.
func (p *packer) content(f *os.File, size int64) error {
	n, err := io.CopyBuffer(struct{ io.Writer }{p.out}, io.LimitReader(f, size), p.buf)
	if err != nil || n == size {
		return err
	}
	clear(p.buf)
	for n < size && err == nil {
		var m int
		m, err = p.out.Write(p.buf[:min(size-n, int64(len(p.buf)))])
		n += int64(m)
	}
	return err
}

func addXattrs(f *os.File, h *tar.Header) {
	list := make([]byte, 4096)
	n, err := unix.Flistxattr(int(f.Fd()), list)
	if err != nil {
		return
	}
	for _, name := range zeroEnded(list[:n]) {
		value := make([]byte, 4096)
		if !wantedXattr(name) {
			continue
		}
		if n, err := unix.Fgetxattr(int(f.Fd()), name, value); err == nil {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords[xattrRecord+name] = string(value[:n])
		}
	}
}

func zeroEnded(b []byte) (names []string) {
	for i, c := 0, 0; i < len(b); i++ {
		if b[i] == 0 {
			names = append(names, string(b[c:i]))
			c = i + 1
		}
	}
	return names
}
