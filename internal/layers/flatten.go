package layers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/lima-vm/go-qcow2reader/image"

	"banger"
	"banger/internal/artifact"
	"banger/internal/ext4"
)

// flatName is the file a shared base is flattened into.
const flatName = ".tmp-" + baseName

// Flatten makes the disk in dir one raw file again: in place where no other
// directory has a link to its base, else in a new file. It may be interrupted
// anywhere and called again: at every moment the files there are make the same
// disk, since a base that has what its layers have in addition changes nothing.
func Flatten(ctx context.Context, dir string) error {
	base, overlays, err := Of(dir)
	if err != nil || len(overlays) == 0 {
		return err
	}
	if err := remove(dir, flatName); err != nil { // of one that was interrupted
		return banger.Wrap(err, "cannot flatten a disk")
	}
	n, err := links(filepath.Join(dir, base))
	switch {
	case err != nil:
	case n == 1:
		err = mergeInto(ctx, dir, base, overlays)
	default:
		err = replace(ctx, dir, base, overlays)
	}
	// The lowest first: without what is above it, a layer would hide what
	// the base has by now.
	for _, name := range overlays {
		if err == nil {
			err = cancelled(ctx)
		}
		if err == nil {
			err = remove(dir, name)
		}
	}
	return banger.Wrap(err, "cannot flatten a disk")
}

func cancelled(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return banger.Errorf(banger.Cancelled, "%w", context.Cause(ctx))
}

// replace puts a flattened copy in the place of a base that others have.
func replace(ctx context.Context, dir, base string, overlays []string) error {
	flat := filepath.Join(dir, flatName)
	err := ext4.Copy(ctx, filepath.Join(dir, base), flat)
	if err == nil {
		err = mergeInto(ctx, dir, flatName, overlays)
	}
	if err == nil {
		err = artifact.Rename(flat, filepath.Join(dir, base))
	}
	if err != nil {
		os.Remove(flat)
	}
	return err
}

// mergeInto writes to a raw file what the layers have, and syncs it.
func mergeInto(ctx context.Context, dir, raw string, overlays []string) (err error) {
	stack, err := openStack(dir, overlays)
	if err != nil {
		return err
	}
	defer stack.close()
	f, err := os.OpenFile(filepath.Join(dir, raw), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	m := merger{to: f, buf: make([]byte, mergeChunk)}
	if err := m.extend(stack.size()); err != nil {
		return err
	}
	for at := int64(0); at < stack.size(); {
		if err := cancelled(ctx); err != nil {
			return err
		}
		from, extent, err := stack.extent(at, min(stack.size()-at, maxExtent))
		if err == nil && from != nil {
			err = m.copy(from, extent)
		}
		if err != nil {
			return err
		}
		at += extent.Length
	}
	return f.Sync()
}

// stack is the layers of a disk, the topmost first.
type stack []image.Image

func openStack(dir string, overlays []string) (s stack, err error) {
	for _, name := range overlays {
		img, err := openLayer(filepath.Join(dir, name))
		if err != nil {
			s.close()
			return nil, err
		}
		s = append(stack{img}, s...)
	}
	return s, nil
}

func (s stack) close() {
	for _, img := range s {
		img.Close()
	}
}

func (s stack) size() int64 { return s[0].Size() }

// maxExtent bounds how much is looked at in one layer while another one may have
// much less in one piece.
const maxExtent = 64 << 20

// extent tells which layer has what is at an offset, and how far it goes, up to
// length; nil where none has.
func (s stack) extent(at, length int64) (image.Image, image.Extent, error) {
	for _, img := range s {
		if at >= img.Size() {
			continue // the disk was smaller then
		}
		e, err := img.Extent(at, min(length, img.Size()-at))
		if err != nil {
			return nil, e, err
		}
		if e.Length <= 0 {
			return nil, e, fmt.Errorf("a layer has nothing at %d", at)
		}
		length = e.Length
		if e.Allocated {
			return img, e, nil
		}
	}
	return nil, image.Extent{Start: at, Length: length}, nil
}

// mergeChunk is read at once.
const mergeChunk = 1 << 20

// merger writes to a raw file.
type merger struct {
	to  *os.File
	buf []byte
}

// extend makes the file as large as the disk has become.
func (m merger) extend(size int64) error {
	info, err := m.to.Stat()
	if err != nil || info.Size() >= size {
		return err
	}
	return m.to.Truncate(size)
}

// copy takes over what a layer has. Zeroes become holes.
func (m merger) copy(from image.Image, e image.Extent) error {
	if e.Zero {
		return m.zero(e.Start, e.Length)
	}
	for at, end := e.Start, e.Start+e.Length; at < end; {
		buf := m.buf[:min(int64(len(m.buf)), end-at)]
		if n, err := from.ReadAt(buf, at); n < len(buf) {
			return errors.Join(err, io.ErrUnexpectedEOF)
		}
		if err := m.write(buf, at); err != nil {
			return err
		}
		at += int64(len(buf))
	}
	return nil
}

func (m merger) write(buf []byte, at int64) error {
	for run, zero := range runs(buf) {
		var err error
		if zero {
			err = m.zero(at, int64(len(run)))
		} else {
			_, err = m.to.WriteAt(run, at)
		}
		if err != nil {
			return err
		}
		at += int64(len(run))
	}
	return nil
}

// zero makes a hole, where the file system can.
func (m merger) zero(at, length int64) error {
	err := unix.Fallocate(int(m.to.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, length)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return m.writeZeroes(at, length)
	}
	return err
}

func (m merger) writeZeroes(at, length int64) error {
	zeroes := make([]byte, min(length, mergeChunk))
	for end := at + length; at < end; at += int64(len(zeroes)) {
		zeroes = zeroes[:min(int64(len(zeroes)), end-at)]
		if _, err := m.to.WriteAt(zeroes, at); err != nil {
			return err
		}
	}
	return nil
}
