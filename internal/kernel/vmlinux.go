package kernel

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
)

// maxVmlinux bounds what a payload may unpack to.
const maxVmlinux = 512 << 20

// Offsets in the x86 boot protocol's setup header.
const (
	offSetupSects    = 0x1f1
	offBootFlag      = 0x1fe
	offHeaderMagic   = 0x202
	offVersion       = 0x206
	offKernelVersion = 0x20e
	offPayload       = 0x248
	offPayloadLength = 0x24c
)

var errNotKernel = errors.New("it is neither a bzImage nor an ELF kernel")

// bzImage is a compressed x86 kernel.
type bzImage []byte

func parseBzImage(b []byte) (bzImage, error) {
	if len(b) < offPayloadLength+4 || binary.LittleEndian.Uint16(b[offBootFlag:]) != 0xaa55 ||
		string(b[offHeaderMagic:offHeaderMagic+4]) != "HdrS" {
		return nil, errNotKernel
	}
	if v := binary.LittleEndian.Uint16(b[offVersion:]); v < 0x208 {
		return nil, fmt.Errorf("its boot protocol %d.%02d is too old to say where the kernel lies in it", v>>8, v&0xff)
	}
	return bzImage(b), nil
}

// release is what uname -r will say.
func (b bzImage) release() (string, error) {
	at := int(binary.LittleEndian.Uint16(b[offKernelVersion:])) + 0x200
	if at == 0x200 || at >= len(b) {
		return "", errors.New("it names no release")
	}
	return firstWord(b[at:])
}

func firstWord(b []byte) (string, error) {
	b = b[:min(len(b), 256)]
	end := bytes.IndexAny(b, " \x00")
	if end <= 0 {
		return "", errors.New("it names no release")
	}
	release := string(b[:end])
	if strings.ContainsFunc(release, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' }) {
		return "", fmt.Errorf("its release %q cannot be one", release)
	}
	return release, nil
}

// vmlinux unpacks the ELF kernel.
func (b bzImage) vmlinux() ([]byte, error) {
	sects := int64(b[offSetupSects])
	if sects == 0 {
		sects = 4 // what the protocol says zero means
	}
	start := (sects+1)*512 + int64(binary.LittleEndian.Uint32(b[offPayload:]))
	length := int64(binary.LittleEndian.Uint32(b[offPayloadLength:]))
	if length < 8 || start+length > int64(len(b)) {
		return nil, errors.New("it is truncated: its payload ends behind the end of the file")
	}
	out, err := unpack(b[start : start+length])
	if err != nil {
		return nil, err
	}
	return out, checkELF(out)
}

// unpack decompresses a payload by its magic. All formats but gzip are
// followed by four bytes with the unpacked size.
func unpack(p []byte) ([]byte, error) {
	body := p[:len(p)-4]
	size := int64(binary.LittleEndian.Uint32(p[len(p)-4:]))
	if size > maxVmlinux {
		return nil, fmt.Errorf("its payload says it unpacks to %d bytes", size)
	}
	var out []byte
	var err error
	switch {
	case bytes.HasPrefix(p, []byte{0x02, 0x21, 0x4c, 0x18}):
		out, err = unpackLZ4Legacy(body[4:], size)
	case bytes.HasPrefix(p, []byte{0x1f, 0x8b}):
		out, err = unpackReader(gzip.NewReader(bytes.NewReader(p)))
	case bytes.HasPrefix(p, []byte("\xfd7zXZ\x00")):
		out, err = unpackReader(xz.NewReader(bytes.NewReader(body)))
	case bytes.HasPrefix(p, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		out, err = unpackReader(zstd.NewReader(bytes.NewReader(body)))
	case bytes.HasPrefix(p, []byte(elf.ELFMAG)):
		return p, nil
	default:
		return nil, fmt.Errorf("its payload is compressed in a way banger does not know (magic % x)", p[:4])
	}
	if err != nil {
		return nil, fmt.Errorf("cannot unpack its payload: %w", err)
	}
	if int64(len(out)) != size {
		return nil, fmt.Errorf("its payload unpacks to %d bytes instead of %d", len(out), size)
	}
	return out, nil
}

func unpackReader[R io.Reader](r R, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(io.LimitReader(r, maxVmlinux+1))
	if len(out) > maxVmlinux {
		return nil, errors.New("it is too large")
	}
	return out, err
}

// unpackLZ4Legacy reads blocks of a length and that many compressed bytes,
// each 8 MiB unpacked but the last.
func unpackLZ4Legacy(p []byte, size int64) ([]byte, error) {
	out := make([]byte, 0, size)
	block := make([]byte, 8<<20)
	for len(p) >= 4 {
		n := int64(binary.LittleEndian.Uint32(p))
		if p = p[4:]; n > int64(len(p)) {
			return nil, io.ErrUnexpectedEOF
		}
		m, err := lz4.UncompressBlock(p[:n], block)
		if err != nil {
			return nil, err
		}
		if int64(len(out)+m) > size {
			return nil, errors.New("it unpacks to more than it says")
		}
		out = append(out, block[:m]...)
		p = p[n:]
	}
	return out, nil
}

func checkELF(b []byte) error {
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("it holds no ELF kernel: %w", err)
	}
	if f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return fmt.Errorf("it holds an ELF file that is no program (%s)", f.Type)
	}
	if f.Machine != elf.EM_X86_64 {
		return fmt.Errorf("it is built for %s; banger runs x86-64 kernels", f.Machine)
	}
	if !hasPVHNote(f) {
		return errors.New("it has no PVH entry point (CONFIG_PVH), by which QEMU starts a kernel")
	}
	return nil
}

// hasPVHNote says whether an ELF kernel has the Xen note with its 32-bit
// entry point, type 18.
func hasPVHNote(f *elf.File) bool {
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE || p.Filesz > 1<<20 {
			continue
		}
		notes, err := io.ReadAll(p.Open())
		if err == nil && findNote(notes, "Xen\x00", 18) {
			return true
		}
	}
	return false
}

func findNote(b []byte, owner string, typ uint32) bool {
	for len(b) >= 12 {
		nameLen, descLen := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
		t := binary.LittleEndian.Uint32(b[8:])
		size := 12 + align4(int64(nameLen)) + align4(int64(descLen))
		if size > int64(len(b)) {
			return false
		}
		if t == typ && string(b[12:12+nameLen]) == owner {
			return true
		}
		b = b[size:]
	}
	return false
}

func align4(n int64) int64 { return (n + 3) &^ 3 }

// elfRelease finds the banner every kernel carries.
func elfRelease(b []byte) (string, error) {
	banner := []byte("Linux version ")
	for at := bytes.Index(b, banner); at >= 0; {
		b = b[at+len(banner):]
		// The format string of /proc/version has the same beginning.
		if len(b) > 0 && b[0] >= '0' && b[0] <= '9' {
			return firstWord(b)
		}
		at = bytes.Index(b, banner)
	}
	return "", errors.New("it names no release")
}
