package vmm

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"banger"
)

// sparse makes a file with a few pages of data and holes before, between and
// after them.
func sparse(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "memory"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	for _, page := range []int64{3, 4, 700} {
		if _, err := f.WriteAt(bytes.Repeat([]byte{byte(page)}, PageSize), page*PageSize); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(1000 * PageSize); err != nil {
		t.Fatal(err)
	}
	return f
}

func blocks(t *testing.T, f *os.File) int64 {
	t.Helper()
	var s unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &s); err != nil {
		t.Fatal(err)
	}
	return s.Blocks * 512
}

func wantSame(t *testing.T, got, want *os.File) {
	t.Helper()
	a, err1 := os.ReadFile(got.Name())
	b, err2 := os.ReadFile(want.Name())
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Errorf("%d bytes are not the same as %d", len(a), len(b))
	}
}

func TestCopyKeepsContentAndHoles(t *testing.T) {
	from := sparse(t)
	to, err := os.Create(filepath.Join(t.TempDir(), "copy"))
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	if err := CopySparse(to, from); err != nil {
		t.Fatal(err)
	}
	wantSame(t, to, from)
	if n := blocks(t, to); n > 64*PageSize {
		t.Errorf("the copy takes %d bytes of disk", n)
	}
}

func TestCopyLeavesOutWhatIsNotWanted(t *testing.T) {
	from, err := NewMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	if _, err := from.WriteAt(bytes.Repeat([]byte{7}, 9*PageSize-100), PageSize); err != nil { // pages 1 to 9, the last a part
		t.Fatal(err)
	}
	for _, spared := range [][]int64{nil, {0, 1, 2}, {4, 6, 7}, {9}, {1, 2, 3, 4, 5, 6, 7, 8, 9}} {
		to, err := NewMemory()
		if err != nil {
			t.Fatal(err)
		}
		defer to.Close()
		if err := CopySparseBut(to, from, func(page int64) bool { return slices.Contains(spared, page) }); err != nil {
			t.Fatal(err)
		}
		want := make([]byte, 10*PageSize-100)
		if _, err := from.ReadAt(want, 0); err != nil {
			t.Fatal(err)
		}
		for _, page := range spared {
			clear(want[page*PageSize : min((page+1)*PageSize, int64(len(want)))])
		}
		if got, err := io.ReadAll(io.NewSectionReader(to, 0, 1<<20)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("without %v: %v, or other content", spared, err)
		}
	}
}

func TestZeroesInRAMBecomeHolesAgain(t *testing.T) {
	memory, err := NewMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	if err := CopySparse(memory, sparse(t)); err != nil {
		t.Fatal(err)
	}
	if err := Seal(memory); err != nil {
		t.Fatal(err)
	}
	private, err := unix.Mmap(int(memory.Fd()), 0, 1000*PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(private)
	for page := range 1000 {
		private[page*PageSize] = 1
	}
	if n := blocks(t, memory); n < 1000*PageSize {
		t.Errorf("only %d bytes: this kernel keeps the holes, and CopySparse may trust them", n)
	}
	to, err := os.Create(filepath.Join(t.TempDir(), "copy"))
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	if err := CopySparse(to, memory); err != nil {
		t.Fatal(err)
	}
	wantSame(t, to, sparse(t))
	if n := blocks(t, to); n > 64*PageSize {
		t.Errorf("the copy takes %d bytes of disk", n)
	}
}

func TestSealedCopyCannotBeChanged(t *testing.T) {
	from := sparse(t)
	f, err := SealedCopy(from.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !Sealed(f) || Sealed(from) {
		t.Errorf("sealed: the copy %v, the file %v", Sealed(f), Sealed(from))
	}
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("writing: %v", err)
	}
	sum, err1 := Checksum(f)
	want, err2 := Checksum(from)
	if sum != want || err1 != nil || err2 != nil {
		t.Errorf("checksum %s, want %s (%v, %v)", sum, want, err1, err2)
	}
}

func TestChecksumIsOfContentAndPlace(t *testing.T) {
	sum := func(change func(*os.File)) string {
		t.Helper()
		f := sparse(t)
		change(f)
		s, err := Checksum(f)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	plain := sum(func(*os.File) {})
	if got := sum(func(f *os.File) { f.WriteAt(make([]byte, PageSize), 10*PageSize) }); got != plain {
		t.Errorf("zeroes instead of a hole: %s, want %s", got, plain)
	}
	for what, change := range map[string]func(*os.File){
		"a byte": func(f *os.File) { f.WriteAt([]byte{1}, 700*PageSize+5) },
		"a place": func(f *os.File) {
			f.WriteAt(make([]byte, PageSize), 4*PageSize)
			f.WriteAt(bytes.Repeat([]byte{4}, PageSize), 5*PageSize)
		},
		"a size": func(f *os.File) { f.Truncate(1001 * PageSize) },
	} {
		if got := sum(change); got == plain {
			t.Errorf("%s changes nothing in %s", what, got)
		}
	}
}

func TestStateSurvivesItsFile(t *testing.T) {
	cfg := Config{Accel: TCG, VCPU: 2, MemoryMiB: 64, Disks: []Disk{{Serial: "root", ReadOnly: true}, {Serial: "disk"}}}
	s := StateOf("qemu", "7.2.22", cfg)
	s.Devices = []byte("with\nnewlines\n")
	text, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ReadState(path)
	if err != nil || !bytes.Equal(got.Devices, s.Devices) || got.shape() != s.shape() || got.Version != s.Version {
		t.Errorf("%+v, %v, want %+v", got, err, s)
	}
	for i := range text { // every single byte matters
		bad := bytes.Clone(text)
		bad[i] ^= 0x20
		if _, err := decodeState(bad); err == nil {
			t.Errorf("byte %d is not looked at", i)
		}
	}
}

func TestStateFitsItsMachineOnly(t *testing.T) {
	memory, cfg := sparse(t), Config{Accel: TCG, VCPU: 1, MemoryMiB: 4}
	if err := memory.Truncate(4 << 20); err != nil {
		t.Fatal(err)
	}
	s := StateOf("qemu", "", cfg)
	if err := s.Fits("qemu", cfg, memory); err != nil {
		t.Error(err)
	}
	other := cfg
	other.Accel = KVM
	for what, err := range map[string]error{
		"another driver": s.Fits("fake", cfg, memory), "another acceleration": s.Fits("qemu", other, memory),
	} {
		if banger.CodeOf(err) != banger.BadRequest {
			t.Errorf("%s: %v", what, err)
		}
	}
}
