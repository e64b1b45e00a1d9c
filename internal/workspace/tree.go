package workspace

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// sender writes files of the host as a tar stream and counts what it wrote.
type sender struct {
	tw     *tar.Writer
	Files  int   // of work trees
	Bytes  int64 // of everything
	buffer []byte
}

func newSender(w io.Writer) *sender {
	return &sender{tw: tar.NewWriter(w), buffer: make([]byte, 256<<10)}
}

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

// tree sends what git tracks of a work tree. Directories come with their files.
// A file that has gone meanwhile is left out.
func (t *sender) tree(files, to string, entries []entry) error {
	for _, e := range entries {
		if e.mode == moduleMode {
			if err := t.directory(path.Join(to, e.path)); err != nil {
				return err
			}
			continue
		}
		err := t.file(filepath.Join(files, e.path), path.Join(to, e.path))
		if err == nil {
			t.Files++
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (t *sender) directory(name string) error {
	return t.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: time.Now()})
}

// file sends one file or symlink, not through a link that has just taken its
// place.
func (t *sender) file(local, name string) error {
	f, err := os.OpenFile(local, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return t.link(local, name)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no file any more", local)
	}
	h := &tar.Header{
		Typeflag: tar.TypeReg, Name: name, Size: info.Size(), Mode: int64(info.Mode().Perm()),
		ModTime: info.ModTime().Truncate(time.Second), // an odd one would make the header three times as long
	}
	if err := t.tw.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyBuffer(onlyWriter{t.tw}, io.LimitReader(f, h.Size), t.buffer)
	if err == nil && n < h.Size {
		err = fmt.Errorf("%s shrank from %d to %d bytes while it was read", local, h.Size, n)
	}
	t.Bytes += n
	return err
}

// onlyWriter hides that a tar writer reads by itself, with a small buffer.
type onlyWriter struct{ io.Writer }

func (t *sender) link(local, name string) error {
	target, err := os.Readlink(local)
	if err != nil {
		return err
	}
	info, err := os.Lstat(local)
	if err != nil {
		return err
	}
	return t.tw.WriteHeader(&tar.Header{
		Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777, ModTime: info.ModTime().Truncate(time.Second),
	})
}

// text sends a file that is made here.
func (t *sender) text(name, content string) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content)), Mode: 0o644, ModTime: time.Now().Truncate(time.Second)}
	if err := t.tw.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.WriteString(t.tw, content)
	t.Bytes += int64(len(content))
	return err
}

// hardLink gives a file that was sent a second name.
func (t *sender) hardLink(sent, name string) error {
	return t.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: sent, Mode: 0o644, ModTime: time.Now()})
}

func (t *sender) close() error { return t.tw.Close() }
