package vmm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"iter"
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
	f, err := NewMemory()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(CopySparse(f, from), Seal(f)); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// NewMemory makes an empty file without a name, in RAM, to save a machine's
// memory into; it is gone with its last descriptor.
func NewMemory() (*os.File, error) {
	fd, err := unix.MemfdCreate("banger-memory", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	return os.NewFile(uintptr(fd), "memory"), nil
}

// Fresh says whether a file is a NewMemory that nobody has used yet.
func Fresh(f *os.File) bool {
	info, err := f.Stat()
	set, none := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0) // of a file that has a name: F_SEAL_SEAL, or an error
	return err == nil && none == nil && set == 0 && info.Size() == 0
}

// Seal makes a NewMemory one that nobody can change any more.
func Seal(f *os.File) error {
	_, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
	return banger.Wrap(err, "cannot seal the saved memory")
}

// Sealed says whether a file is one that nobody can change.
func Sealed(f *os.File) bool {
	set, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	return err == nil && set&seals == seals
}

// CopySparse gives to, which is empty, the content and size of from, whose
// holes stay holes. From a file on disk the kernel does the copying, and
// shares blocks where the file system can.
//
// A file in RAM has data where it has none: the first access to a hole of it
// through anybody's map, even a private one, makes it a page of zeroes. Those
// become holes again.
func CopySparse(to, from *os.File) error {
	return CopySparseBut(to, from, func(int64) bool { return false })
}

// CopySparseBut is CopySparse without the pages that somebody writes to their
// places anyway.
func CopySparseBut(to, from *os.File, without func(page int64) bool) error {
	info, err := from.Stat()
	if err != nil {
		return err
	}
	if err := to.Truncate(info.Size()); err != nil {
		return err
	}
	p := pageCopy{to: to, from: from, buf: make([]byte, min(256*PageSize, info.Size()))}
	move := p.inKernel
	if inRAM(from) {
		move = p.pages
	}
	return eachData(from, info.Size(), func(begin, end int64) error {
		return eachWanted(begin, end, without, move)
	})
}

// eachWanted calls do for each stretch of pages of a range that are wanted.
func eachWanted(begin, end int64, without func(page int64) bool, do func(begin, end int64) error) error {
	for begin < end {
		skip, next := without(begin/PageSize), (begin/PageSize+1)*PageSize
		for next < end && without(next/PageSize) == skip {
			next += PageSize
		}
		next = min(next, end)
		if !skip {
			if err := do(begin, next); err != nil {
				return err
			}
		}
		begin = next
	}
	return nil
}

func inRAM(f *os.File) bool {
	_, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	return err == nil // others have no seals
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

// pageCopy copies from a file to another one. It has one buffer, since there
// can be tens of thousands of ranges.
type pageCopy struct {
	to, from *os.File
	buf      []byte
}

// inKernel copies in the kernel, where the two file systems let it.
func (p pageCopy) inKernel(at, end int64) error {
	out := at
	for at < end {
		n, err := unix.CopyFileRange(int(p.from.Fd()), &at, int(p.to.Fd()), &out, int(end-at), 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case n == 0 || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS):
			return p.pages(at, end)
		case err != nil:
			return err
		}
	}
	return nil
}

// pages copies what is not zero.
func (p pageCopy) pages(at, end int64) error {
	for at < end {
		n, err := p.from.ReadAt(p.buf[:min(int64(len(p.buf)), end-at)], at)
		if n == 0 {
			return err
		}
		for run, zero := range Runs(p.buf[:n]) {
			if !zero {
				if _, err := p.to.WriteAt(run, at); err != nil {
					return err
				}
			}
			at += int64(len(run))
		}
	}
	return nil
}

// Runs cuts memory into the longest runs of pages that are all zero or all
// not, and says which they are.
func Runs(memory []byte) iter.Seq2[[]byte, bool] {
	return func(yield func([]byte, bool) bool) {
		for len(memory) > 0 {
			n := min(PageSize, len(memory))
			zero := IsZero(memory[:n])
			for n < len(memory) && IsZero(memory[n:min(n+PageSize, len(memory))]) == zero {
				n = min(n+PageSize, len(memory))
			}
			if !yield(memory[:n], zero) {
				return
			}
			memory = memory[n:]
		}
	}
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
