package kernel

import (
	"bytes"
	"compress/flate"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"banger"
)

// mostMemory is what taking in a kernel may need, whoever made it.
const mostMemory = 256 << 20

// peak is by how much the memory of this process grew at most while do ran.
func peak(t *testing.T, do func()) int64 {
	t.Helper()
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // forgets the old peak
		t.Skip(err)
	}
	before := statusOf(t, "VmRSS:")
	do()
	return statusOf(t, "VmHWM:") - before
}

func statusOf(t *testing.T, key string) (bytes int64) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n"+key)
	if _, err := fmt.Sscan(rest, &bytes); err != nil {
		t.Fatal(err)
	}
	return bytes << 10
}

// sections finds the section headers of what elfFile made: nothing, names, content.
func sections(b []byte) [3][]byte {
	at := binary.LittleEndian.Uint64(b[40:])
	return [3][]byte{b[at : at+64], b[at+64 : at+128], b[at+128 : at+192]}
}

// zeros is a section's content that says it unpacks to so many MiB of zeros, and does.
// After the first all are packed alike, which is done once: the race detector makes it slow.
func zeros(t *testing.T, mib int) []byte {
	t.Helper()
	var b bytes.Buffer
	head := elf.Chdr64{Type: uint32(elf.COMPRESS_ZLIB), Size: uint64(mib) << 20, Addralign: 1}
	if err := binary.Write(&b, binary.LittleEndian, head); err != nil {
		t.Fatal(err)
	}
	b.Write([]byte{0x78, 1}) // zlib's header
	z, err := flate.NewWriter(&b, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	pack := func() (packed []byte) {
		from := b.Len()
		if _, err := z.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		if err := z.Flush(); err != nil {
			t.Fatal(err)
		}
		return bytes.Clone(b.Bytes()[from:])
	}
	pack()
	b.Write(bytes.Repeat(pack(), mib-2))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	b.Write(binary.BigEndian.AppendUint32(nil, uint32((mib<<20)%65521)<<16|1)) // Adler-32 of zeros
	return b.Bytes()
}

// bomb is a module whose section of content unpacks to more than there is memory for; names makes the
// section the one with the names of all.
func bomb(t *testing.T, content []byte, names bool) []byte {
	b := elfFile(t, elf.ET_REL, ".modinfo", content, false)
	binary.LittleEndian.PutUint64(sections(b)[2][8:], uint64(elf.SHF_COMPRESSED))
	if names {
		binary.LittleEndian.PutUint32(sections(b)[2][4:], uint32(elf.SHT_STRTAB))
		binary.LittleEndian.PutUint16(b[62:], 2) // e_shstrndx
	}
	return b
}

// farXZ says of itself that it refers back as far as 4 GiB.
func farXZ(t *testing.T) []byte {
	b := compressed(t, "xz", testModule(t))
	head := b[12 : 12+4*(int(b[12])+1)] // of the first block
	at := bytes.Index(head, []byte{0x21, 1}) + 2
	if at < 2 {
		t.Fatalf("no LZMA2 in % x", head)
	}
	head[at] = 40
	binary.LittleEndian.PutUint32(head[len(head)-4:], crc32.ChecksumIEEE(head[:len(head)-4]))
	return b
}

// farZstd says that it refers back as far as 512 MiB.
func farZstd() []byte {
	return append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, (29 - 10) << 3}, 1, 0, 0)
}

func TestHostileKernelsAreRefusedWithinBoundsOfMemory(t *testing.T) {
	const modules = "lib/modules/" + testRelease + "/"
	const mine = modules + "kernel/mine.ko"
	tooMuch := zeros(t, 300)
	for name, c := range map[string]struct {
		file    string
		content []byte
		size    int64 // of the file, where that is more: all holes
		want    string
	}{
		"compressed .modinfo":      {file: mine, content: bomb(t, tooMuch, false), want: "its .modinfo is compressed"},
		"compressed names":         {file: mine, content: bomb(t, tooMuch, true), want: "the names of its sections are compressed"},
		"large .modinfo":           {file: mine, content: elfFile(t, elf.ET_REL, ".modinfo", make([]byte, 2<<20), false), want: "its .modinfo has 2097152 bytes"},
		"large names":              {file: mine, content: elfFile(t, elf.ET_REL, ".modinfo"+strings.Repeat("o", 2<<20), nil, false), want: "the names of its sections have"},
		"large module":             {file: mine, content: testModule(t), size: 1 << 30, want: "it is too large"},
		"large unpacked module":    {file: mine + ".zst", content: compressed(t, "zstd", make([]byte, maxModule+1)), want: "it is too large"},
		"sections beyond counting": {file: mine, content: uncounted(t), want: "more sections than it can say"},
		"headers of any size":      {file: mine, content: wide(t), want: "headers of an unusual size"},
		"xz from far back":         {file: mine + ".xz", content: farXZ(t), want: "dictionary size exceeds"},
		"zstd from far back":       {file: mine + ".zst", content: farZstd(), want: "window size exceeded"},
		"large modules.order":      {file: modules + "modules.order", size: 1 << 30, want: "modules.order has 1073741824 bytes"},
		"large modules.builtin":    {file: modules + "modules.builtin", size: 1 << 30, want: "modules.builtin has 1073741824 bytes"},
		"large builtin.modinfo":    {file: modules + "modules.builtin.modinfo", size: 1 << 30, want: "modules.builtin.modinfo has 1073741824 bytes"},
		"large early module":       {file: modules + "kernel/drivers/virtio/virtio_ring.ko", content: testModule(t), size: 200 << 20, want: "more than 67108864 bytes"},
		"a kernel that is empty":   {file: "boot/vmlinuz-" + testRelease, content: testBzImage(t, "zstd", make([]byte, maxVmlinux)), want: "holds no ELF kernel"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := testKernelDir(t)
			path := filepath.Join(dir, c.file)
			if err := os.WriteFile(path, c.content, 0o600); err != nil {
				t.Fatal(err)
			}
			if c.size > 0 {
				if err := os.Truncate(path, c.size); err != nil {
					t.Fatal(err)
				}
			}
			s := testStore(t)
			var err error
			most := peak(t, func() { _, err = s.Import(t.Context(), ImportRequest{Name: "mine", Dir: dir}) })
			if banger.CodeOf(err) != banger.BadRequest || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", banger.CodeOf(err), err, c.want)
			}
			if most > mostMemory {
				t.Errorf("it took %d MiB", most>>20)
			}
			if left, _ := os.ReadDir(filepath.Join(s.dir, "building")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// uncounted has so many sections that their number is elsewhere.
func uncounted(t *testing.T) []byte {
	b := testModule(t)
	binary.LittleEndian.PutUint16(b[60:], 0)
	binary.LittleEndian.PutUint64(sections(b)[0][32:], 4<<20)
	return b
}

// wide has headers that are as long as it likes.
func wide(t *testing.T) []byte {
	b := testModule(t)
	binary.LittleEndian.PutUint16(b[54:], 0xffff)
	return b
}

// What each module says is small, and what comes of it is not.
func TestModulesThatSayTooMuchTogetherAreRefused(t *testing.T) {
	chain := map[string][]byte{}
	for i := range 3000 { // what each needs is written out for it, with all that that needs
		chain[fmt.Sprintf("link%d.ko", i)] = testModule(t, fmt.Sprintf("depends=link%d", i-1))
	}
	chain["link0.ko"] = testModule(t)
	words := testModule(t, strings.Repeat("alias=\x00", 120_000))
	for name, c := range map[string]struct {
		modules map[string][]byte
		want    string
	}{
		"chain":   {chain, "modules.dep would have more than"},
		"words":   {map[string][]byte{"a.ko": words, "b.ko": words}, "say more of themselves"},
		"aliases": {map[string][]byte{strings.Repeat("a", 200) + ".ko": words}, "modules.alias and"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := testKernelDir(t)
			for name, content := range c.modules {
				if err := os.WriteFile(filepath.Join(dir, "lib/modules", testRelease, "kernel", name), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var err error
			most := peak(t, func() { _, err = testStore(t).Import(t.Context(), ImportRequest{Name: "mine", Dir: dir}) })
			if banger.CodeOf(err) != banger.BadRequest || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", banger.CodeOf(err), err)
			}
			if most > mostMemory {
				t.Errorf("it took %d MiB", most>>20)
			}
		})
	}
}
