package kernel

import (
	"bytes"
	"debug/elf"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestVmlinuxComesOutOfEveryKindOfBzImage(t *testing.T) {
	want := testVmlinux(t)
	for how := range compressors {
		image, err := parse(testBzImage(t, how, want))
		if err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		if release, err := image.release(); release != testRelease || err != nil {
			t.Errorf("%s: release %q, %v", how, release, err)
		}
		var got bytes.Buffer
		if err := image.vmlinux(t.Context(), &got); err != nil || !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%s: %d bytes instead of %d, %v", how, got.Len(), len(want), err)
		}
	}
}

func TestBadKernelsAreRefusedWithTheReason(t *testing.T) {
	good := testBzImage(t, "lz4", testVmlinux(t))
	broken := bytes.Clone(good)
	copy(broken[2*512+100+8:], bytes.Repeat([]byte{0xff}, 64))
	unknown := bytes.Clone(good)
	copy(unknown[2*512+100:], "BZh9")
	for name, c := range map[string]struct {
		image []byte
		want  string
	}{
		"text":        {[]byte(strings.Repeat("no kernel", 1000)), "neither a bzImage nor an ELF"},
		"empty":       {nil, "neither a bzImage nor an ELF"},
		"truncated":   {good[:len(good)-200], "truncated"},
		"broken":      {broken, "cannot unpack its payload"},
		"compression": {unknown, "magic 42 5a 68 39"},
		"no ELF":      {testBzImage(t, "zstd", []byte(strings.Repeat("x", 100))), "holds no ELF kernel"},
		"no PVH":      {testBzImage(t, "zstd", elfFile(t, elf.ET_EXEC, ".text", []byte("x"), false)), "no PVH entry point"},
		"module":      {testBzImage(t, "zstd", testModule(t)), "no program"},
	} {
		path := filepath.Join(t.TempDir(), "vmlinuz")
		if err := os.WriteFile(path, c.image, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := writeKernel(t.Context(), path, t.TempDir())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func parse(b []byte) (*bzImage, error) { return parseBzImage(bytes.NewReader(b), int64(len(b))) }

func TestReleaseOfAnELFKernelIsNotItsFormatString(t *testing.T) {
	b := testVmlinux(t)
	if got, err := elfRelease(bytes.NewReader(b), int64(len(b))); got != testRelease || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestAReleaseIsTheNameOfADirectory(t *testing.T) {
	for _, release := range []string{".", "..", "6.1/x", "/etc", "6.1\x01", ""} {
		if got, err := firstWord([]byte(release + " (someone@somewhere)")); err == nil {
			t.Errorf("%q", got)
		}
	}
}

func FuzzBzImage(f *testing.F) {
	f.Add([]byte("no kernel"))
	header := make([]byte, 2048)
	header[offBootFlag], header[offBootFlag+1] = 0x55, 0xaa
	copy(header[offHeaderMagic:], "HdrS\x0f\x02")
	header[offPayloadLength] = 64
	for _, magic := range []string{"\x02\x21\x4c\x18", "\x1f\x8b", "\xfd7zXZ\x00", "\x28\xb5\x2f\xfd", elf.ELFMAG} {
		f.Add(append(bytes.Clone(header[:2048]), append(make([]byte, 512), magic...)...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		image, err := parse(b)
		if err != nil {
			return
		}
		_, _ = image.release()
		var out bytes.Buffer
		if image.vmlinux(t.Context(), &out) == nil {
			_ = checkELF(bytes.NewReader(out.Bytes()))
			_, _ = elfRelease(bytes.NewReader(out.Bytes()), int64(out.Len()))
		}
	})
}
