// Package ext4 writes ext4 files without mounting anything: read-only ones
// from tar streams, empty writable ones for VMs' disks, and copies of those.
//
// It knows nothing of images, kernels or VMs.
package ext4

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"banger/internal/artifact"

	"github.com/Microsoft/hcsshim/ext4/tar2ext4"
	"github.com/klauspost/readahead"
)

// Options steer FromTar.
type Options struct {
	// Unique promises that the stream names each file once, so that it can
	// be converted as it arrives. Without it the stream is kept in a file
	// first, and the last of several entries of one path is the one written.
	Unique bool
	// MaxBytes bounds the file system; 0 means 64 GiB.
	MaxBytes int64
	// Unsynced leaves it to the caller to sync the file, who may have other
	// things to do with it meanwhile.
	Unsynced bool
}

const defaultMaxBytes = 64 << 30

// FromTar writes the files of the tar stream r into a read-only ext4 file at
// path. It is written under a temporary name beside path, synced and renamed:
// after a failure path is as it was.
func FromTar(ctx context.Context, r io.Reader, path string, opts Options) error {
	r = artifact.Reader(ctx, r)
	err := write(path, opts, func(w *tar.Writer) error {
		if opts.Unique {
			return cleanTar(r, w, func(string, int) bool { return true })
		}
		spool, index, err := spoolTar(r, filepath.Dir(path))
		if err != nil {
			return err
		}
		defer spool.Close()
		return cleanTar(spool, w, func(name string, i int) bool { return index[name] == i })
	})
	if err != nil {
		return fmt.Errorf("cannot make a file system of the tar stream: %w", err)
	}
	return nil
}

// Add takes one entry of a file system; content is read to the header's size.
type Add func(h *tar.Header, content io.Reader) error

// FromEntries is FromTar of what source adds. Each path comes once, a hard
// link after what it points at; a directory may come after what is in it.
func FromEntries(ctx context.Context, path string, opts Options, source func(Add) error) error {
	return write(path, opts, func(w *tar.Writer) error {
		buffer := make([]byte, 1<<20)
		return source(func(h *tar.Header, content io.Reader) error {
			if err := ctx.Err(); err != nil { // of entries without content too
				return err
			}
			return addEntry(w, h, artifact.Reader(ctx, content), buffer)
		})
	})
}

func write(path string, opts Options, source func(*tar.Writer) error) error {
	if opts.MaxBytes == 0 {
		opts.MaxBytes = defaultMaxBytes
	}
	out, err := os.CreateTemp(filepath.Dir(path), ".tmp-ext4-*")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	if err := convert(out, opts, source); err != nil {
		return err
	}
	if !opts.Unsynced {
		if err := out.Sync(); err != nil {
			return err
		}
	}
	if err := out.Close(); err != nil {
		return err
	}
	return os.Rename(out.Name(), path)
}

// errConverted is what the source meets when the converter has ended.
var errConverted = errors.New("the conversion has ended")

// convert has the converter read, through a pipe, what source writes. The pipe
// holds some, so that neither waits for each step of the other.
func convert(out *os.File, opts Options, source func(*tar.Writer) error) error {
	pr, pw := io.Pipe()
	held, err := readahead.NewReaderSize(pr, 4, 256<<10)
	if err != nil {
		return err
	}
	defer held.Close()
	sent := make(chan error, 1)
	go func() {
		buffered := bufio.NewWriterSize(pw, 256<<10)
		w := tar.NewWriter(buffered)
		err := source(w)
		if err == nil {
			err = w.Close()
		}
		if err == nil {
			err = buffered.Flush()
		}
		pw.CloseWithError(err)
		sent <- err
	}()
	sparse := &sparseFile{f: out}
	err = tar2ext4.ConvertTarToExt4(held, sparse, tar2ext4.MaximumDiskSize(opts.MaxBytes))
	pr.CloseWithError(errConverted)
	// Where both complain, the converter's error is the consequence.
	if sourceErr := <-sent; sourceErr != nil && !errors.Is(sourceErr, errConverted) {
		return sourceErr
	}
	if err != nil {
		return err
	}
	return sparse.finish()
}

// spoolTar keeps the stream in an unlinked file and notes which entry of each
// path is the last.
func spoolTar(r io.Reader, dir string) (*os.File, map[string]int, error) {
	f, err := os.CreateTemp(dir, ".tmp-tar-*")
	if err != nil {
		return nil, nil, err
	}
	os.Remove(f.Name())
	index := map[string]int{}
	if _, err = io.Copy(f, r); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err == nil {
		err = eachHeader(f, func(i int, h *tar.Header) { index[cleanName(h.Name)] = i })
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, index, nil
}

func eachHeader(r io.Reader, note func(int, *tar.Header)) error {
	t := tar.NewReader(r)
	for i := 0; ; i++ {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		note(i, h)
	}
}

// cleanTar copies the entries that are last for their path.
func cleanTar(r io.Reader, w *tar.Writer, last func(name string, i int) bool) error {
	in := tar.NewReader(bufio.NewReaderSize(r, 1<<20))
	for i := 0; ; i++ {
		h, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeXGlobalHeader || !last(cleanName(h.Name), i) {
			continue
		}
		if err := addEntry(w, h, in, nil); err != nil {
			return err
		}
	}
}

// addEntry writes an entry with what the converter gets wrong taken out of its
// header.
func addEntry(w *tar.Writer, h *tar.Header, content io.Reader, buffer []byte) error {
	if err := cleanHeader(h); err != nil {
		return err
	}
	if err := w.WriteHeader(h); err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	if _, err := io.CopyBuffer(onlyWriter{w}, content, buffer); err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	return nil
}

// onlyWriter hides ReadFrom, which would not use the buffer.
type onlyWriter struct{ io.Writer }

func cleanHeader(h *tar.Header) error {
	if escapes(h.Name) {
		return fmt.Errorf("entry %q leaves the tree", h.Name)
	}
	switch h.Typeflag {
	case tar.TypeLink:
		if escapes(h.Linkname) {
			return fmt.Errorf("hard link %q leaves the tree: it points at %q", h.Name, h.Linkname)
		}
	case tar.TypeGNUSparse:
		h.Typeflag = tar.TypeReg
	case tar.TypeReg, tar.TypeSymlink, tar.TypeDir, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
	default:
		return fmt.Errorf("entry %q is of the unknown type %q", h.Name, h.Typeflag)
	}
	if err := cleanRecords(h); err != nil {
		return err
	}
	//lint:ignore SA1019 the reader fills it in, and the writer would put the ACLs back from it
	h.Xattrs = nil
	h.Format = tar.FormatPAX
	h.ModTime = clampTime(h.ModTime)
	h.AccessTime, h.ChangeTime = h.ModTime, h.ModTime
	if h.Uid < 0 || h.Uid > math.MaxUint32 || h.Gid < 0 || h.Gid > math.MaxUint32 {
		return fmt.Errorf("entry %q belongs to %d:%d, which are no ids", h.Name, h.Uid, h.Gid)
	}
	return nil
}

// clampTime keeps t where the converter encodes it rightly: before 1970 and
// after 2038 it gets the epoch bits wrong.
func clampTime(t time.Time) time.Time {
	const maxSeconds = 1<<31 - 1
	switch s := t.Unix(); {
	case s < 0:
		return time.Unix(0, 0)
	case s > maxSeconds:
		return time.Unix(maxSeconds, 0)
	}
	return t
}

func cleanName(name string) string { return path.Clean("/" + name) }

func escapes(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return true
		}
	}
	return strings.ContainsRune(name, 0)
}
