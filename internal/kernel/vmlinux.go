package kernel

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/pierrec/lz4/v4"

	"banger/internal/artifact"
)

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
type bzImage struct {
	r    io.ReaderAt
	size int64
	head [offPayloadLength + 4]byte
}

func parseBzImage(r io.ReaderAt, size int64) (*bzImage, error) {
	b := &bzImage{r: r, size: size}
	if n, _ := r.ReadAt(b.head[:], 0); n < len(b.head) || binary.LittleEndian.Uint16(b.head[offBootFlag:]) != 0xaa55 ||
		string(b.head[offHeaderMagic:offHeaderMagic+4]) != "HdrS" {
		return nil, errNotKernel
	}
	if v := binary.LittleEndian.Uint16(b.head[offVersion:]); v < 0x208 {
		return nil, fmt.Errorf("its boot protocol %d.%02d is too old to say where the kernel lies in it", v>>8, v&0xff)
	}
	return b, nil
}

// release is what uname -r will say.
func (b *bzImage) release() (string, error) {
	at := int64(binary.LittleEndian.Uint16(b.head[offKernelVersion:])) + 0x200
	if at == 0x200 || at >= b.size {
		return "", errors.New("it names no release")
	}
	word := make([]byte, longestRelease)
	n, err := b.r.ReadAt(word, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return firstWord(word[:n])
}

// longestRelease is more than uname has place for.
const longestRelease = 256

// firstWord is a release, which is also the name of a directory.
func firstWord(b []byte) (string, error) {
	b = b[:min(len(b), longestRelease)]
	end := bytes.IndexAny(b, " \x00")
	if end <= 0 {
		return "", errors.New("it names no release")
	}
	release := string(b[:end])
	if release == "." || release == ".." || strings.ContainsFunc(release, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' }) {
		return "", fmt.Errorf("its release %q cannot be one", release)
	}
	return release, nil
}

// vmlinux unpacks the ELF kernel.
func (b *bzImage) vmlinux(ctx context.Context, w io.Writer) error {
	sects := int64(b.head[offSetupSects])
	if sects == 0 {
		sects = 4 // what the protocol says zero means
	}
	start := (sects+1)*512 + int64(binary.LittleEndian.Uint32(b.head[offPayload:]))
	length := int64(binary.LittleEndian.Uint32(b.head[offPayloadLength:]))
	if length < 8 || start+length > b.size {
		return errors.New("it is truncated: its payload ends behind the end of the file")
	}
	return unpack(ctx, w, io.NewSectionReader(b.r, start, length))
}

// unpack decompresses a payload by its magic. All formats but gzip are
// followed by four bytes with the unpacked size; gzip's own last ones are that.
func unpack(ctx context.Context, w io.Writer, p *io.SectionReader) error {
	var magic [6]byte
	var end [4]byte
	if _, err := p.ReadAt(magic[:], 0); err != nil {
		return err
	}
	if _, err := p.ReadAt(end[:], p.Size()-4); err != nil {
		return err
	}
	if strings.HasPrefix(string(magic[:]), elf.ELFMAG) {
		return copyAtMost(w, artifact.Reader(ctx, p), maxVmlinux)
	}
	size := int64(binary.LittleEndian.Uint32(end[:]))
	if size > maxVmlinux {
		return fmt.Errorf("its payload says it unpacks to %d bytes", size)
	}
	r, err := unpacker(magic, artifact.Reader(ctx, p), p.Size())
	if err != nil {
		return err
	}
	n, err := io.Copy(w, io.LimitReader(r, size+1))
	switch {
	case hostsOwn(err):
		return err
	case err != nil:
		return fmt.Errorf("cannot unpack its payload: %w", err)
	case n > size:
		return fmt.Errorf("its payload unpacks to more than the %d bytes it says", size)
	case n < size:
		return fmt.Errorf("its payload unpacks to %d bytes instead of %d", n, size)
	}
	return nil
}

// unpacker reads what a payload of so many bytes unpacks to.
func unpacker(magic [6]byte, p io.Reader, length int64) (r io.Reader, err error) {
	body := io.LimitReader(p, length-4)
	switch m := string(magic[:]); {
	case strings.HasPrefix(m, "\x02\x21\x4c\x18"):
		r = &lz4Legacy{from: body}
		_, err = io.CopyN(io.Discard, body, 4)
	case strings.HasPrefix(m, "\x1f\x8b"):
		r, err = gunzip(p)
	case m == "\xfd7zXZ\x00":
		r, err = unxz(body)
	case strings.HasPrefix(m, "\x28\xb5\x2f\xfd"):
		r, err = unzstd(body)
	default:
		return nil, fmt.Errorf("its payload is compressed in a way banger does not know (magic % x)", m[:4])
	}
	if err != nil {
		return nil, fmt.Errorf("cannot unpack its payload: %w", err)
	}
	return r, nil
}

// lz4Block is what a block of the legacy format unpacks to, unless it is the last.
const lz4Block = 8 << 20

// lz4Legacy reads blocks: a length and that many compressed bytes.
type lz4Legacy struct {
	from          io.Reader
	packed, block []byte
	left          []byte // of block
}

func (l *lz4Legacy) Read(p []byte) (int, error) {
	for len(l.left) == 0 {
		if err := l.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, l.left)
	l.left = l.left[n:]
	return n, nil
}

func (l *lz4Legacy) next() error {
	if l.block == nil {
		l.block, l.packed = make([]byte, lz4Block), make([]byte, lz4.CompressBlockBound(lz4Block))
	}
	var length uint32
	if err := binary.Read(l.from, binary.LittleEndian, &length); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = io.EOF // less than a length is padding
		}
		return err
	}
	if int64(length) > int64(len(l.packed)) {
		return errors.New("it has a block that is too large")
	}
	if _, err := io.ReadFull(l.from, l.packed[:length]); err != nil {
		return io.ErrUnexpectedEOF
	}
	n, err := lz4.UncompressBlock(l.packed[:length], l.block)
	if err != nil {
		return err
	}
	l.left = l.block[:n]
	return nil
}

func checkELF(r io.ReaderAt) error {
	f, err := openELF(r)
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
// entry point, type 18. Kernels have one segment of notes.
func hasPVHNote(f *elf.File) bool {
	left := uint64(maxSection)
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE || p.Filesz > left {
			continue
		}
		left -= p.Filesz
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
func elfRelease(r io.ReaderAt, size int64) (string, error) {
	const overlap = 64 + longestRelease
	buf := make([]byte, 1<<20)
	for at := int64(0); at < size; at += int64(len(buf) - overlap) {
		n, err := r.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		if release, ok := bannerIn(buf[:n]); ok {
			return firstWord(release)
		}
	}
	return "", errors.New("it names no release")
}

// bannerIn gives what follows the banner's beginning.
func bannerIn(b []byte) (rest []byte, ok bool) {
	banner := []byte("Linux version ")
	for at := bytes.Index(b, banner); at >= 0; at = bytes.Index(b, banner) {
		b = b[at+len(banner):]
		// The format string of /proc/version has the same beginning.
		if len(b) > 0 && b[0] >= '0' && b[0] <= '9' {
			return b, true
		}
	}
	return nil, false
}
