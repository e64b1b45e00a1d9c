package vmm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"banger"
)

// seals make a memory file one that nobody can change any more, whatever
// rights their descriptor has. A private map of it can still be written to.
const seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL

// SealedCopy copies a saved memory into a file without a name, in RAM, that
// nobody can ever change, its owner included: one such copy serves any number
// of Restores, also in other processes that inherit it. It takes as much RAM
// as the file has data, and about 0.7 ms for each MiB of it.
func SealedCopy(path string) (*os.File, error) {
	from, err := os.Open(path)
	if err != nil {
		return nil, banger.Wrap(err, "cannot open the saved memory")
	}
	defer from.Close()
	f, err := sealedCopy(from)
	return f, banger.Wrap(err, "cannot copy the saved memory")
}

func sealedCopy(from *os.File) (*os.File, error) {
	fd, err := unix.MemfdCreate("banger-memory", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "sealed memory")
	if err := CopySparse(f, from); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot seal: %w", err)
	}
	return f, nil
}

// Sealed says whether a file is one that nobody can change.
func Sealed(f *os.File) bool {
	set, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	return err == nil && set&seals == seals
}

// CopySparse gives to, which is empty, the content and size of from, whose
// holes stay holes. The kernel does the copying, and shares blocks where the
// file system can.
func CopySparse(to, from *os.File) error {
	info, err := from.Stat()
	if err != nil {
		return err
	}
	if err := to.Truncate(info.Size()); err != nil {
		return err
	}
	return eachData(from, info.Size(), func(begin, end int64) error {
		return copyRange(to, from, begin, end)
	})
}

// eachData calls do for each stretch of a file that is no hole.
func eachData(f *os.File, size int64, do func(begin, end int64) error) error {
	for end := int64(0); end < size; {
		begin, err := unix.Seek(int(f.Fd()), end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // only a hole is left
		}
		if err != nil {
			return fmt.Errorf("cannot find the data: %w", err)
		}
		if end, err = unix.Seek(int(f.Fd()), begin, unix.SEEK_HOLE); err != nil {
			return fmt.Errorf("cannot find the holes: %w", err)
		}
		if err := do(begin, end); err != nil {
			return err
		}
	}
	return nil
}

// copyRange copies in the kernel where it can: between file systems only
// sendfile does.
func copyRange(to, from *os.File, at, end int64) error {
	out := at
	for at < end {
		n, err := unix.CopyFileRange(int(from.Fd()), &at, int(to.Fd()), &out, int(end-at), 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case n == 0 || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS):
			return sendRange(to, from, at, end)
		case err != nil:
			return err
		}
	}
	return nil
}

func sendRange(to, from *os.File, at, end int64) error {
	if _, err := to.Seek(at, io.SeekStart); err != nil {
		return err
	}
	for at < end {
		n, err := unix.Sendfile(int(to.Fd()), int(from.Fd()), &at, int(min(end-at, 1<<30)))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n == 0 && err == nil {
			return io.ErrUnexpectedEOF
		}
	}
	return nil
}

// Checksum tells whether a saved memory is what it was: take it once after the
// Save, and again before a file that may have rotted is used. It reads all
// data, some GB in a second; holes and zeroes are the same to it.
func Checksum(memory *os.File) (string, error) {
	info, err := memory.Stat()
	if err != nil {
		return "", err
	}
	sum := pageSum{crc: crc32.New(crc32.MakeTable(crc32.Castagnoli))}
	err = eachData(memory, info.Size(), func(begin, end int64) error {
		return sum.add(memory, begin, end)
	})
	if err != nil {
		return "", banger.Wrap(err, "cannot read the saved memory")
	}
	return fmt.Sprintf("crc32c:%d:%08x", info.Size(), sum.crc.Sum32()), nil
}

// PageSize is the unit in which memory is saved, shared and compared.
const PageSize = 4096

// pageSum hashes pages that are not zero, each with its place.
type pageSum struct {
	crc hash.Hash32
	buf [256 * PageSize]byte
}

func (s *pageSum) add(f *os.File, at, end int64) error {
	for at < end {
		n, err := f.ReadAt(s.buf[:min(int64(len(s.buf)), end-at)], at)
		if n == 0 {
			return err
		}
		for page := range slices.Chunk(s.buf[:n], PageSize) {
			if !IsZero(page) {
				s.crc.Write(binary.LittleEndian.AppendUint64(nil, uint64(at)))
				s.crc.Write(page)
			}
			at += int64(len(page))
		}
	}
	return nil
}

var zeroes [PageSize]byte

// IsZero says whether a page, or less, is all zeroes.
func IsZero(page []byte) bool { return bytes.Equal(page, zeroes[:len(page)]) }
