package qemu

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/vmm"
)

// ownMemory is memory of this process in the place of a machine's.
func ownMemory(t *testing.T, pages int) ([]byte, ram) {
	t.Helper()
	memory, err := unix.Mmap(-1, 0, pages*vmm.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(memory) })
	at := int64(uintptr(unsafe.Pointer(&memory[0])))
	return memory, ram{pid: os.Getpid(), at: at, size: int64(len(memory))}
}

func beginCopy(t *testing.T, r ram, to *os.File) *memoryCopy {
	t.Helper()
	c, err := r.copyTo(to)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func emptyFile(t *testing.T, size int64) *os.File {
	t.Helper()
	f, err := vmm.NewMemory()
	if err == nil {
		err = f.Truncate(size)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestSecondCopyCatchesUpWithTheMemory(t *testing.T) {
	pages := 2*span + 100
	memory, r := ownMemory(t, pages)
	page := func(i int) []byte { return memory[i*vmm.PageSize:][:vmm.PageSize] }
	for i := 0; i < pages; i += 3 {
		page(i)[i%vmm.PageSize] = 1
	}
	page(1)[0] = 0 // touched, and zero
	to := emptyFile(t, r.size)
	c := beginCopy(t, r, to)
	if err := c.pass(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	wantCopy(t, to, memory)
	clear(page(0))             // was data
	clear(page(2 * span / 3))  // the same, or never touched
	page(1)[7] = 1             // was zero
	page(2)[8] = 1             // was not there
	page(span + 2)[9]++        // in the next span
	page(pages - 1)[4095] = 42 // the last
	page(3)[vmm.PageSize-1]++  // changed
	if err := c.pass(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	wantCopy(t, to, memory)
}

// wantCopy wants the file to hold the memory, and no page that is zero.
func wantCopy(t *testing.T, f *os.File, memory []byte) {
	t.Helper()
	held := make([]byte, len(memory))
	if _, err := f.ReadAt(held, 0); err != nil || !bytes.Equal(held, memory) {
		t.Fatalf("the file does not hold the memory (%v)", err)
	}
	want := int64(0)
	for i := 0; i < len(memory); i += vmm.PageSize {
		if !vmm.IsZero(memory[i : i+vmm.PageSize]) {
			want++
		}
	}
	var info unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &info); err != nil {
		t.Fatal(err)
	}
	if got := info.Blocks * 512 / vmm.PageSize; got != want {
		t.Errorf("the file has %d pages, want %d", got, want)
	}
}

func TestCopyEndsWithItsContext(t *testing.T) {
	memory, r := ownMemory(t, 3)
	memory[0] = 1
	to := emptyFile(t, r.size)
	why := errors.New("no time left")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := beginCopy(t, r, to).pass(ctx, 1); banger.CodeOf(err) != banger.Cancelled || !errors.Is(err, why) {
		t.Errorf("err = %v", err)
	}
	var first [1]byte
	if _, err := to.ReadAt(first[:], 0); err != nil || first[0] != 0 {
		t.Errorf("it copied %v all the same (%v)", first, err)
	}
}
