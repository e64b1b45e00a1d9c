package kernel

import (
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
	"github.com/xi2/xz"
)

// What a kernel may have. It may come from a registry, so whatever is read into
// memory is bounded before, and large files are never read into it: no kernel
// takes 256 MiB.
const (
	maxVmlinux     = 512 << 20 // bytes, packed or not
	maxModule      = 256 << 20 // bytes unpacked
	maxAllModules  = 4 << 30   // bytes unpacked
	maxEarly       = 64 << 20  // bytes of what the initramfs loads, which is read
	maxSection     = 1 << 20   // bytes of a section that is read
	maxWords       = 200_000   // dependencies, aliases of all modules
	maxKept        = 8 << 20   // bytes of these, and of the modules' paths
	maxList        = 1 << 20   // bytes of modules.order, of modules.builtin
	maxBuiltinInfo = 16 << 20  // bytes of modules.builtin.modinfo
	maxIndex       = 16 << 20  // bytes of an index that is computed
	maxWindow      = 128 << 20 // how far back what is compressed may refer: as far as kernels are packed with
)

var errTooLarge = errors.New("it is too large")

func gunzip(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }
func unxz(r io.Reader) (io.Reader, error)   { return xz.NewReader(r, maxWindow) }

func unzstd(r io.Reader) (io.Reader, error) {
	return zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
}

// copyAtMost copies all of r, and no more than most bytes.
func copyAtMost(w io.Writer, r io.Reader, most int64) error {
	n, err := io.Copy(w, io.LimitReader(r, most+1))
	if err == nil && n > most {
		err = errTooLarge
	}
	return err
}

// readAtMost reads a file that may be missing.
func readAtMost(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && info.Size() > most {
		err = fmt.Errorf("%s has %d bytes, of at most %d", path, info.Size(), most)
	}
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, most))
}

// openELF is elf.NewFile for a file that nobody answers for. That one reads headers
// and names however many there are, and unpacks the names.
func openELF(r io.ReaderAt) (*elf.File, error) {
	var h elf.Header64
	size := int64(binary.Size(h))
	if err := binary.Read(io.NewSectionReader(r, 0, size), binary.LittleEndian, &h); err != nil {
		return nil, fmt.Errorf("it is no ELF file: %w", err)
	}
	if string(h.Ident[:6]) != elf.ELFMAG+"\x02\x01" {
		return nil, errors.New("it is no ELF file of 64 bits, little-endian")
	}
	var names elf.Section64
	switch {
	case h.Phnum > 0 && int(h.Phentsize) != binary.Size(elf.Prog64{}), h.Shnum > 0 && int(h.Shentsize) != binary.Size(names):
		return nil, errors.New("it has headers of an unusual size")
	case h.Shoff > 0 && (h.Shnum == 0 || h.Shstrndx >= h.Shnum):
		return nil, errors.New("it has more sections than it can say, or nothing that names them")
	case h.Shoff > 0:
		at := int64(h.Shoff) + int64(h.Shstrndx)*int64(h.Shentsize)
		if err := binary.Read(io.NewSectionReader(r, at, int64(h.Shentsize)), binary.LittleEndian, &names); err != nil {
			return nil, fmt.Errorf("it is truncated: %w", err)
		}
	}
	if elf.SectionFlag(names.Flags)&elf.SHF_COMPRESSED != 0 {
		return nil, errors.New("the names of its sections are compressed")
	}
	if names.Size > maxSection {
		return nil, fmt.Errorf("the names of its sections have %d bytes, of at most %d", names.Size, maxSection)
	}
	return elf.NewFile(r)
}
