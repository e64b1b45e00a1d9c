package layers

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"banger"
)

// testSize is that of the disks here: the last cluster is not whole.
const testSize = 40*clusterSize + 4096

// disk makes a directory with a base of random clusters and holes.
func disk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, baseName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(testSize); err != nil {
		t.Fatal(err)
	}
	for n := int64(0); n < 40; n += 3 {
		if _, err := f.WriteAt(random(clusterSize), n*clusterSize); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func random(n int) []byte {
	text := make([]byte, n)
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(text[i:], rand.Uint64())
	}
	return text
}

// put gives a layer a cluster, as a VMM does: nil is one of zeroes. The layers
// that QEMU writes itself are tried in vmm/vmmtest.
func put(t *testing.T, path string, number int64, text []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	grow := func() uint64 { // a cluster at the end; nobody here looks at refcounts
		end, err := f.Seek(0, 2)
		if err == nil {
			end = (end + clusterSize - 1) / clusterSize * clusterSize
			err = f.Truncate(end + clusterSize)
		}
		if err != nil {
			t.Fatal(err)
		}
		return uint64(end)
	}
	word := func(at int64, value uint64) {
		if _, err := f.WriteAt(binary.BigEndian.AppendUint64(nil, value), at); err != nil {
			t.Fatal(err)
		}
	}
	const copied = 1 << 63
	var l1 [8]byte
	if _, err := f.ReadAt(l1[:], l1At); err != nil {
		t.Fatal(err)
	}
	l2 := binary.BigEndian.Uint64(l1[:]) &^ copied
	if l2 == 0 {
		l2 = grow()
		word(l1At, l2|copied)
	}
	entry := uint64(1) // reads as zeroes
	if text != nil {
		at := grow()
		if _, err := f.WriteAt(text, int64(at)); err != nil {
			t.Fatal(err)
		}
		entry = at | copied
	}
	word(int64(l2)+8*number, entry)
}

// layer puts a new layer on a disk and writes, discards and leaves clusters in
// it.
func layer(t *testing.T, dir string) string {
	t.Helper()
	name, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	for n := range int64(41) {
		switch rand.IntN(4) {
		case 0:
			put(t, filepath.Join(dir, name), n, random(clusterSize))
		case 1:
			put(t, filepath.Join(dir, name), n, nil)
		}
	}
	return name
}

// content is what a VM reads from the disk in dir.
func content(t *testing.T, dir string) []byte {
	t.Helper()
	base, overlays, err := Of(dir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, base))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range overlays { // from below, as Flatten does not
		img, err := openLayer(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, make([]byte, max(0, int(img.Size())-len(text)))...)
		for at := int64(0); at < img.Size(); {
			e, err := img.Extent(at, img.Size()-at)
			if err != nil {
				t.Fatal(err)
			}
			if e.Allocated {
				if n, err := img.ReadAt(text[at:at+e.Length], at); int64(n) < e.Length {
					t.Fatal(err)
				}
			}
			at += e.Length
		}
		img.Close()
	}
	return text
}

func wantContent(t *testing.T, dir string, want []byte) {
	t.Helper()
	if got := content(t, dir); !bytes.Equal(got, want) {
		t.Errorf("the disk of %d bytes is not the one of %d it was", len(got), len(want))
	}
}

func wantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	want = slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		t.Errorf("the directory has %q, want %q", got, want)
	}
}

// dataSize is what a disk takes on the host.
func dataSize(t *testing.T, dir string) (sum int64) {
	t.Helper()
	files, err := filesOf(dir)
	for _, name := range files {
		n, e := allocated(filepath.Join(dir, name))
		sum, err = sum+n, errors.Join(err, e)
	}
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func TestDiskIsListedInOrder(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := Of(dir); banger.CodeOf(err) != banger.NotFound {
		t.Errorf("an empty directory: %v", err)
	}
	for _, name := range []string{"disk.10.qcow2", "disk.2.qcow2", "disk.ext4", "disk.02.qcow2", "disk.0.qcow2", "disk.-1.qcow2", "disk.x.qcow2", "disk.3.qcow2.tmp", "memory"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	base, overlays, err := Of(dir)
	if err != nil || base != "disk.ext4" || !slices.Equal(overlays, []string{"disk.2.qcow2", "disk.10.qcow2"}) {
		t.Errorf("%q, %q, %v", base, overlays, err)
	}
}

func TestEmptyLayerChangesNothingAndIsSmall(t *testing.T) {
	dir := disk(t)
	want := content(t, dir)
	before := dataSize(t, dir)
	for n, name := range []string{"disk.1.qcow2", "disk.2.qcow2"} {
		if got, err := New(dir); got != name || err != nil {
			t.Errorf("layer %d is %q, %v", n, got, err)
		}
	}
	wantContent(t, dir, want)
	if after := dataSize(t, dir); after-before > 512<<10 { // some file systems reserve more than is written
		t.Errorf("two layers take %d bytes", after-before)
	}
	info, err := os.Stat(filepath.Join(dir, "disk.1.qcow2"))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestLayerIsNeverOverwrittenNorOfAnImpossibleSize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	for _, size := range []int64{0, -512, 511, maxSize + 512} {
		if err := CreateOverlay(path, size); banger.CodeOf(err) != banger.BadRequest {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := CreateOverlay(path, testSize); !errors.Is(err, fs.ErrExist) {
		t.Errorf("error %v", err)
	}
	if text, _ := os.ReadFile(path); string(text) != "precious" {
		t.Errorf("it now holds %q", text)
	}
}

// Whoever makes a layer may be killed at any moment: it must be whole when it
// gets its name.
func TestLayerIsWholeWhenItGetsItsName(t *testing.T) {
	dir := disk(t)
	if err := os.WriteFile(filepath.Join(dir, ".tmp-disk.1.qcow2"), []byte("half a layer"), 0o600); err != nil {
		t.Fatal(err)
	}
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, dir, unix.IN_CREATE|unix.IN_MODIFY); err != nil {
		t.Fatal(err)
	}
	name, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	var events [4096]byte
	n, err := unix.Read(watch, events[:])
	if err != nil {
		t.Fatal(err)
	}
	named := false
	for left := events[:n]; len(left) >= unix.SizeofInotifyEvent; {
		mask, length := binary.NativeEndian.Uint32(left[4:]), int(binary.NativeEndian.Uint32(left[12:]))
		of := string(bytes.TrimRight(left[unix.SizeofInotifyEvent:][:length], "\x00"))
		if of == name && mask&unix.IN_MODIFY != 0 {
			t.Errorf("%s was written to under its name", of)
		}
		named = named || of == name
		left = left[unix.SizeofInotifyEvent+length:]
	}
	if !named {
		t.Error("the watch saw nothing")
	}
	if entries, err := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestLayerThatNamesAFileBelowIsRefused(t *testing.T) {
	dir := disk(t)
	name, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.WriteAt(binary.BigEndian.AppendUint64(nil, 512), 8)
	f.WriteAt(binary.BigEndian.AppendUint32(nil, 11), 16)
	f.WriteAt([]byte("/etc/passwd"), 512)
	if err := Flatten(t.Context(), dir); err == nil {
		t.Error("it was read")
	}
}

func TestDiskGrowsAndNeverShrinks(t *testing.T) {
	dir := disk(t)
	want := content(t, dir)
	for layers := range 2 {
		for _, size := range []int64{testSize, testSize + int64(layers+1)*clusterSize, testSize} {
			if err := Grow(dir, size); err != nil {
				t.Fatal(err)
			}
			want = append(want, make([]byte, max(0, int(size)-len(want)))...)
			if got, err := Size(dir); got != int64(len(want)) || err != nil {
				t.Errorf("grown to %d it has %d, want %d (%v)", size, got, len(want), err)
			}
			wantContent(t, dir, want)
		}
		if _, err := New(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := Flatten(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	wantContent(t, dir, want)
}

// countdown is a context that ends after its error was asked for so many times.
type countdown struct {
	context.Context
	left int
}

func (c *countdown) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

func TestFlattenedDiskIsTheSameWhereverItWasInterrupted(t *testing.T) {
	for _, shared := range []bool{false, true} {
		dir, other := disk(t), t.TempDir()
		for range 3 {
			layer(t, dir)
		}
		want := content(t, dir)
		alone, err := os.ReadFile(filepath.Join(dir, baseName))
		if err != nil {
			t.Fatal(err)
		}
		if shared {
			if err := os.Link(filepath.Join(dir, baseName), filepath.Join(other, baseName)); err != nil {
				t.Fatal(err)
			}
		}
		interrupted := 0
		for {
			err := Flatten(&countdown{t.Context(), interrupted}, dir)
			wantContent(t, dir, want)
			if err == nil {
				break
			}
			if interrupted += 1 + interrupted/8; interrupted > 1000 {
				t.Fatal(err)
			}
		}
		if interrupted < 10 {
			t.Errorf("it was finished after %d steps", interrupted)
		}
		wantNames(t, dir, baseName)
		if shared {
			wantContent(t, other, alone)
		}
	}
}

// A process that is killed leaves some of the layers, and perhaps half a new
// base.
func TestFlattenGoesOnWhereAnotherWasKilled(t *testing.T) {
	for removed := range 4 {
		dir := disk(t)
		var names []string
		for range 3 {
			names = append(names, layer(t, dir))
		}
		want := content(t, dir)
		if err := mergeInto(t.Context(), dir, baseName, names); err != nil {
			t.Fatal(err)
		}
		if err := remove(dir, names[:removed]...); err != nil {
			t.Fatal(err)
		}
		wantContent(t, dir, want)
		if err := os.WriteFile(filepath.Join(dir, flatName), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Flatten(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		wantContent(t, dir, want)
	}
}

func TestZeroesOfALayerBecomeHoles(t *testing.T) {
	dir := disk(t)
	name, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	text := make([]byte, clusterSize)
	text[5*blockSize] = 1
	for n := range int64(40) {
		put(t, path, n, nil)
	}
	put(t, path, 0, text)
	if err := Flatten(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	wantContent(t, dir, append(text, make([]byte, testSize-clusterSize)...))
	if n := dataSize(t, dir); n > 2*blockSize {
		t.Errorf("a block of data takes %d bytes", n)
	}
}

// reserve makes a file take room on the host, as a large one does.
func reserve(t *testing.T, path string, size int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size); err != nil {
		t.Skipf("this file system cannot reserve blocks: %v", err)
	}
}
