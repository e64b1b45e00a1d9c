package rootfs

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
)

func device(name string, kind byte) entry {
	return entry{Header: tar.Header{Name: name, Typeflag: kind, Devmajor: 8}}
}

// hostile is every kind of layer that must be refused, with a part of what is
// said of it. image's and oci's tests have what concerns blobs and registries.
func hostile(t testing.TB) map[string]struct {
	layers [][]byte
	want   string
} {
	deep := strings.Repeat("d/", 2100)
	far, long := symlink("far", strings.Repeat("d/", 2000)), strings.Repeat("n", 97)
	type c = struct {
		layers [][]byte
		want   string
	}
	of := func(want string, layers ...[]entry) c {
		out := c{want: want}
		for _, l := range layers {
			out.layers = append(out.layers, layerOf(t, l...))
		}
		return out
	}
	good := layerOf(t, file("f", strings.Repeat("content", 10000)))
	return map[string]c{
		"traversal":                    of(`"a/../../b" leaves the tree`, []entry{file("a/../../b", "x")}),
		"traversal at the front":       of(`"../b" leaves the tree`, []entry{file("../b", "x")}),
		"traversal of a directory":     of(`leaves the tree`, []entry{dir("..")}),
		"traversal of a whiteout":      of(`leaves the tree`, []entry{without("../.wh.etc")}),
		"write through an escape":      of(`"a/etc/passwd" leaves the tree through a symbolic link`, []entry{symlink("a", "../.."), file("a/etc/passwd", "x")}),
		"write through an old escape":  of(`leaves the tree through a symbolic link`, []entry{symlink("a", "../..")}, []entry{file("a/x", "x")}),
		"whiteout through an escape":   of(`leaves the tree through a symbolic link`, []entry{symlink("a", "..")}, []entry{without("a/.wh.x")}),
		"loop of symbolic links":       of(`behind too many symbolic links`, []entry{symlink("a", "b"), symlink("b", "a"), file("a/x", "x")}),
		"hard link out":                of(`"l" is a hard link to "../x", which leaves the tree`, []entry{hardlink("l", "../x")}),
		"hard link through an escape":  of(`is not there`, []entry{symlink("a", "/../../etc"), hardlink("l", "a/passwd")}),
		"hard link to nothing":         of(`which is not there`, []entry{hardlink("l", "x")}),
		"hard link to a directory":     of(`which is a directory`, []entry{dir("d"), hardlink("l", "d")}),
		"hard link to the root":        of(`which is not there`, []entry{hardlink("l", "/")}),
		"hard link over its target":    of(`which it replaces`, []entry{file("d/a", "x"), hardlink("d", "d/a")}),
		"block device":                 of(`"disk" is a device node`, []entry{device("disk", tar.TypeBlock)}),
		"block device in dev":          of(`"dev/null" is a device node`, []entry{device("dev/null", tar.TypeBlock)}),
		"unusual device in dev":        of(`"dev/mem" is a device node`, []entry{device("dev/mem", tar.TypeChar)}),
		"usual device elsewhere":       of(`"x/dev/null" is a device node`, []entry{device("x/dev/null", tar.TypeChar)}),
		"whiteout of its directory":    of(`is a whiteout of its own directory`, []entry{without(".wh.")}),
		"whiteout of dot":              of(`is a whiteout of its own directory`, []entry{without("d/.wh..")}),
		"whiteout of dot dot":          of(`is a whiteout of its own directory`, []entry{without("d/.wh...")}),
		"file for the root":            of(`would replace the root`, []entry{file(".", "")}),
		"link for the root":            of(`would replace the root`, []entry{symlink(".", "x")}),
		"file for a directory's place": of(`"a/b" lies in "a", which is no directory`, []entry{file("a", "x"), file("a/b", "x")}),
		"unknown type":                 of(`unknown type`, []entry{{Header: tar.Header{Name: "x", Typeflag: 'Z'}}}),
		"long name":                    of(`has a name of 256 bytes`, []entry{file(strings.Repeat("n", 256), "x")}),
		"long path":                    of(`has a path of 4201 bytes`, []entry{file(deep+"x", "x")}),
		"deep directory behind links":  of(`"farther/f" comes to have a path of 4097 bytes`, []entry{far, symlink("farther", "far/"+far.Linkname), file("farther/f", "x")}),
		"deep file behind a link":      of(`comes to have a path of 4097 bytes`, []entry{far, file("far/"+long, "x")}),
		"deep hard link behind a link": of(`comes to have a path of 4097 bytes`, []entry{far, file("f", "x"), hardlink("far/"+long, "f")}),
		"long link":                    of(`is a symbolic link of 5000 bytes`, []entry{symlink("l", strings.Repeat("x", 5000))}),
		"link to nothing":              of(`is a symbolic link to nothing`, []entry{symlink("l", "")}),
		"truncated":                    {[][]byte{good[:30000]}, "unexpected EOF"},
		"no tar":                       {[][]byte{[]byte(strings.Repeat("no tar at all ", 100))}, "invalid tar header"},
		"lying size":                   {[][]byte{lying(t, 1<<20)}, "unexpected EOF"},
		"huge size":                    {[][]byte{lying(t, 1<<50)}, "claims to have 1125899906842624 bytes"},
	}
}

// lying is a layer whose entry claims more than there is.
func lying(t testing.TB, size int64) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "f", Typeflag: tar.TypeReg, Size: size}); err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte("little"))
	_ = w.Flush()
	return b.Bytes()
}

// sparse is a layer with one entry in GNU's old form: a claim and no data.
func sparse(t testing.TB, size int64) []byte {
	t.Helper()
	b := layerOf(t, entry{Header: tar.Header{Name: "s", Typeflag: tar.TypeReg, Format: tar.FormatGNU}})
	b[156] = 'S'
	copy(b[386:], fmt.Sprintf("%011o\x00%011o\x00", size, 0)) // its only part, of no length, at the end
	copy(b[483:], fmt.Sprintf("%011o\x00", size))
	copy(b[148:], "        ")
	sum := 0
	for _, c := range b[:512] {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

func TestHostileLayersAreRefusedByName(t *testing.T) {
	for name, c := range hostile(t) {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			tree := New(dir, Limits{})
			defer tree.Close()
			got, err := world(t, tree, c.layers...)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q\n%s", err, c.want, got)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("%s is left", left[0].Name())
			}
		})
	}
}

// endless is a tar stream that goes on as long as next gives headers.
func endless(next func(i int) *tar.Header) io.Reader {
	pr, pw := io.Pipe()
	go func() {
		buffered := bufio.NewWriterSize(pw, 1<<20)
		w := tar.NewWriter(buffered)
		for i := 0; ; i++ {
			h := next(i)
			if h == nil {
				pw.CloseWithError(errors.Join(w.Close(), buffered.Flush()))
				return
			}
			if err := w.WriteHeader(h); err != nil {
				pw.CloseWithError(err)
				return
			}
		}
	}()
	return pr
}

func TestBombsEndAtTheLimits(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute under the race detector, which has nothing to find in it")
	}
	for name, c := range map[string]struct {
		next func(i int) *tar.Header
		want string
	}{
		"ten million entries": {func(i int) *tar.Header {
			if i == 10_000_000 {
				return nil
			}
			return &tar.Header{Name: fmt.Sprintf("d%d/f%d", i%1000, i), Typeflag: tar.TypeReg}
		}, "more than 500000 entries"},
		"ten million times the same": {func(i int) *tar.Header {
			return &tar.Header{Name: "f", Typeflag: tar.TypeReg}
		}, "more than 500000 entries"},
		"directories nobody declared": {func(i int) *tar.Header {
			return &tar.Header{Name: fmt.Sprintf("%d/%s", i, strings.Repeat("d/", 1900)), Typeflag: tar.TypeDir}
		}, "there are more than 500000"},
		"long names": {func(i int) *tar.Header {
			return &tar.Header{Name: fmt.Sprintf("%s%d", strings.Repeat(strings.Repeat("n", 200)+"/", 19), i), Typeflag: tar.TypeReg}
		}, "take more than 67108864 bytes"},
		"records of a megabyte": {func(i int) *tar.Header {
			return &tar.Header{Name: fmt.Sprint(i), Typeflag: tar.TypeReg, PAXRecords: map[string]string{"SCHILY.xattr.user.x": strings.Repeat("x", 1<<20)}}
		}, "header field too long"},
		"mazes": {func(i int) *tar.Header {
			if i < 40 {
				return &tar.Header{Name: fmt.Sprint(i), Typeflag: tar.TypeSymlink, Linkname: strings.Repeat("./", 2000) + fmt.Sprint(i+1)}
			}
			return &tar.Header{Name: "1/x", Typeflag: tar.TypeReg}
		}, "through too many directories"},
		"the same hidden again and again": {func(i int) *tar.Header {
			switch {
			case i < 200_000:
				return &tar.Header{Name: fmt.Sprintf("d/f%d", i), Typeflag: tar.TypeReg}
			case i < 400_000:
				return &tar.Header{Name: "d/.wh..wh..opq", Typeflag: tar.TypeReg}
			}
			return &tar.Header{Name: ".wh.d", Typeflag: tar.TypeReg}
		}, "more than 500000 entries"},
	} {
		t.Run(name, func(t *testing.T) {
			tree := newTree(t)
			err := tree.Add(context.Background(), endless(c.next))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			if m.HeapAlloc > 128<<20 {
				t.Errorf("%d MiB are in use", m.HeapAlloc>>20)
			}
			runtime.KeepAlive(tree)
		})
	}
}

func TestStreamsThatUnpackToTooMuchEnd(t *testing.T) {
	dir := t.TempDir()
	tree := New(dir, Limits{Entries: 10, Text: 1000, Bytes: 1 << 20})
	defer tree.Close()
	err := tree.Add(context.Background(), bytes.NewReader(layerOf(t, file("a", strings.Repeat("x", 1<<20)))))
	if err == nil || !strings.Contains(err.Error(), "unpack to more than 1048576 bytes") {
		t.Error(err)
	}
	tree = New(dir, Limits{Entries: 10, Text: 1000, Bytes: 1 << 20})
	defer tree.Close()
	tree = New(dir, Limits{Entries: 10, Text: 1000, Bytes: 1 << 20})
	defer tree.Close()
	if err := tree.Add(context.Background(), bytes.NewReader(sparse(t, 2<<20))); err == nil || !strings.Contains(err.Error(), `"s" claims to have 2097152 bytes`) {
		t.Error(err)
	}
	tree = New(dir, Limits{Entries: 10, Text: 1000, Bytes: 1 << 20})
	defer tree.Close()
	if err := tree.Add(context.Background(), bytes.NewReader(sparse(t, 1<<19))); err != nil {
		t.Error(err)
	}
	if err := tree.Add(context.Background(), bytes.NewReader(sparse(t, 1<<20))); err == nil || !strings.Contains(err.Error(), "more than 1048576 bytes") {
		t.Error(err)
	}
	tree = New(dir, Limits{Entries: 10, Text: 1000, Bytes: 1 << 20})
	defer tree.Close()
	trailing := append(layerOf(t, file("a", "x")), make([]byte, 2<<20)...)
	if err := tree.Add(context.Background(), bytes.NewReader(trailing)); err == nil || !strings.Contains(err.Error(), "unpack to more") {
		t.Error(err)
	}
}

// FuzzLayers joins two streams of anybody's. Whatever they are, each entry
// comes once, inside the tree, after what it points at.
func FuzzLayers(f *testing.F) {
	for _, c := range hostile(f) {
		if len(c.layers[0]) > 16<<10 {
			continue // the fuzzer would spend its time on making these smaller
		}
		f.Add(c.layers[0], c.layers[len(c.layers)-1])
	}
	f.Add(layerOf(f, dir("d"), file("d/a", "1"), symlink("l", "d"), hardlink("h", "d/a")), layerOf(f, without("d/.wh.a"), file("l/b", "2"), without("d/.wh..wh..opq")))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		tree := New(t.TempDir(), Limits{Entries: 1000, Text: 1 << 20, Bytes: 1 << 20})
		defer tree.Close()
		for _, l := range [][]byte{a, b} {
			if tree.Add(context.Background(), bytes.NewReader(l)) != nil {
				return
			}
		}
		seen := map[string]byte{}
		err := tree.Each(func(h *tar.Header, content io.Reader) error {
			name := strings.TrimSuffix(h.Name, "/")
			if _, again := seen[name]; again {
				t.Errorf("%q comes twice", h.Name)
			}
			if strings.HasPrefix(name, "/") || strings.Contains("/"+name+"/", "/../") {
				t.Errorf("%q leaves the tree", h.Name)
			}
			if kind, known := seen[h.Linkname]; h.Typeflag == tar.TypeLink && (!known || kind == tar.TypeDir) {
				t.Errorf("%q points at %q, which did not come before", h.Name, h.Linkname)
			}
			seen[name] = h.Typeflag
			if content != nil && h.Typeflag == tar.TypeReg {
				if n, err := io.Copy(io.Discard, content); err != nil || n != h.Size {
					t.Errorf("%q has %d bytes of %d: %v", h.Name, n, h.Size, err)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}
