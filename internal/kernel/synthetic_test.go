package kernel

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
)

const testRelease = "6.1.0-test-amd64"

// elfFile makes a small ELF file with one section of content, and with a PVH
// note if it is a kernel.
func elfFile(t *testing.T, typ elf.Type, section string, content []byte, pvh bool) []byte {
	t.Helper()
	var note []byte
	if pvh {
		note = binary.LittleEndian.AppendUint32(note, 4)
		note = binary.LittleEndian.AppendUint32(note, 4)
		note = binary.LittleEndian.AppendUint32(note, 18)
		note = append(note, "Xen\x00\x00\x00\x00\x01"...)
	}
	names := "\x00.shstrtab\x00" + section + "\x00"
	const headers = 64 + 56
	body := append(append([]byte{}, note...), content...)
	body = append(body, names...)
	noteAt, contentAt := uint64(headers), uint64(headers+len(note))
	namesAt := contentAt + uint64(len(content))

	h := elf.Header64{
		Type: uint16(typ), Machine: uint16(elf.EM_X86_64), Version: 1,
		Phoff: 64, Shoff: headers + uint64(len(body)), Ehsize: 64,
		Phentsize: 56, Phnum: 1, Shentsize: 64, Shnum: 3, Shstrndx: 1,
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = 2, 1, 1
	var b bytes.Buffer
	for _, part := range []any{
		h,
		elf.Prog64{Type: uint32(elf.PT_NOTE), Off: noteAt, Filesz: uint64(len(note))},
		body,
		elf.Section64{},
		elf.Section64{Name: 1, Type: uint32(elf.SHT_STRTAB), Off: namesAt, Size: uint64(len(names))},
		elf.Section64{Name: 11, Type: uint32(elf.SHT_PROGBITS), Off: contentAt, Size: uint64(len(content))},
	} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func testVmlinux(t *testing.T) []byte {
	banner := "Linux version %s (fmt)\x00Linux version " + testRelease + " (someone@somewhere) #1\n"
	return elfFile(t, elf.ET_EXEC, ".rodata", []byte(banner+strings.Repeat("kernel text ", 5000)), true)
}

// compressors are the ways a kernel's build packs its payload, by name.
var compressors = map[string]func(io.Writer) io.WriteCloser{
	"lz4": func(w io.Writer) io.WriteCloser {
		z := lz4.NewWriter(w)
		if err := z.Apply(lz4.LegacyOption(true)); err != nil {
			panic(err)
		}
		return z
	},
	"gzip": func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
	"xz": func(w io.Writer) io.WriteCloser {
		z, err := xz.NewWriter(w)
		if err != nil {
			panic(err)
		}
		return z
	},
	"zstd": func(w io.Writer) io.WriteCloser {
		z, err := zstd.NewWriter(w)
		if err != nil {
			panic(err)
		}
		return z
	},
}

func compressed(t *testing.T, how string, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := compressors[how](&b)
	if _, err := z.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// testBzImage wraps a vmlinux as a kernel's build does.
func testBzImage(t *testing.T, how string, vmlinux []byte) []byte {
	t.Helper()
	payload := compressed(t, how, vmlinux)
	if how != "gzip" { // whose own trailer is the size
		payload = binary.LittleEndian.AppendUint32(payload, uint32(len(vmlinux)))
	}
	const sects, gap = 1, 100
	b := make([]byte, (sects+1)*512+gap)
	b[offSetupSects] = sects
	binary.LittleEndian.PutUint16(b[offBootFlag:], 0xaa55)
	copy(b[offHeaderMagic:], "HdrS")
	binary.LittleEndian.PutUint16(b[offVersion:], 0x20f)
	binary.LittleEndian.PutUint16(b[offKernelVersion:], 0x300-0x200)
	binary.LittleEndian.PutUint32(b[offPayload:], gap)
	binary.LittleEndian.PutUint32(b[offPayloadLength:], uint32(len(payload)))
	copy(b[0x300:], testRelease+" (someone@somewhere) #1 SMP\x00")
	return append(append(b, payload...), "what follows the payload"...)
}

// testModule makes a module with that .modinfo.
func testModule(t *testing.T, info ...string) []byte {
	t.Helper()
	info = append(info, "vermagic="+testRelease+" SMP preempt")
	return elfFile(t, elf.ET_REL, ".modinfo", []byte(strings.Join(info, "\x00")+"\x00"), false)
}

// bootableModules are the least a bootable kernel has, ext4 being built in.
var bootableModules = map[string][]string{
	"kernel/drivers/virtio/virtio_ring.ko":   nil,
	"kernel/drivers/virtio/virtio.ko":        {"depends=virtio_ring"},
	"kernel/drivers/virtio/virtio_mmio.ko":   {"depends=virtio,virtio_ring", "alias=acpi*:LNRO0005:*"},
	"kernel/drivers/block/virtio_blk.ko":     {"depends=virtio,virtio_ring", "alias=virtio:d00000002v*"},
	"kernel/drivers/char/virtio_console.ko":  {"depends=virtio,virtio_ring"},
	"kernel/drivers/char/hw/virtio-rng.ko":   {"depends=virtio"},
	"kernel/fs/overlayfs/overlay.ko":         {"alias=fs-overlay"},
	"kernel/net/netfilter/x_tables.ko":       {"softdep=pre: virtio-blk"},
	"kernel/net/netfilter/nft-[a-b]-test.ko": {"depends=x_tables", "alias=nft-[a-z]-x"},
}

// testKernelDir lays out an unpacked kernel package.
func testKernelDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, content []byte) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("boot/vmlinuz-"+testRelease, testBzImage(t, "lz4", testVmlinux(t)))
	modules := "lib/modules/" + testRelease + "/"
	for path, info := range bootableModules {
		write(modules+path, testModule(t, info...))
	}
	write(modules+"modules.builtin", []byte("kernel/fs/ext4/ext4.ko\n"))
	write(modules+"modules.order", []byte("kernel/drivers/virtio/virtio.ko\n"))
	return dir
}
