package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
)

type entry struct {
	tar.Header
	content string
}

func file(name, content string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}, content}
}
func dir(name string) entry {
	return entry{Header: tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}}
}
func symlink(name, to string) entry {
	return entry{Header: tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}}
}
func hardlink(name, to string) entry {
	return entry{Header: tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to}}
}
func without(name string) entry { return file(name, "") }

func layerOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// world joins layers and prints what comes of them, a line an entry, sorted.
func world(t testing.TB, tree *Tree, layers ...[]byte) (string, error) {
	t.Helper()
	for _, l := range layers {
		if err := tree.Add(context.Background(), bytes.NewReader(l)); err != nil {
			return "", err
		}
	}
	var lines []string
	err := tree.Each(func(h *tar.Header, content io.Reader) error {
		line := fmt.Sprintf("%c %s", h.Typeflag, h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			b, err := io.ReadAll(content)
			if err != nil {
				return err
			}
			line += "=" + string(b)
		case tar.TypeLink, tar.TypeSymlink:
			line += ">" + h.Linkname
		case tar.TypeDir:
			line += fmt.Sprintf(" %o", h.Mode)
		}
		lines = append(lines, line)
		return nil
	})
	slices.Sort(lines)
	return strings.Join(lines, "\n"), err
}

func newTree(t testing.TB) *Tree {
	tree := New(t.TempDir(), Limits{})
	t.Cleanup(func() { tree.Close() })
	return tree
}

func TestLayersJoin(t *testing.T) {
	for name, c := range map[string]struct {
		layers [][]entry
		want   []string
	}{
		"later wins":              {[][]entry{{file("a", "1"), file("b", "b")}, {file("a", "2")}}, []string{"0 a=2", "0 b=b"}},
		"twice in one layer":      {[][]entry{{file("a", "1"), file("./a", "2")}}, []string{"0 a=2"}},
		"whiteout":                {[][]entry{{file("d/a", "1"), file("d/b", "2")}, {without("d/.wh.a")}}, []string{"0 d/b=2", "5 d/ 755"}},
		"whiteout of a directory": {[][]entry{{dir("d"), file("d/a/b", "1"), file("e", "2")}, {without(".wh.d")}}, []string{"0 e=2"}},
		"whiteout of nothing":     {[][]entry{{file("a", "1")}, {without("x/.wh.b")}}, []string{"0 a=1", "5 x/ 755"}},
		"whiteout spares its own layer": {
			[][]entry{{file("d/a", "1"), file("d/b", "2")}, {file("d/a", "3"), without("d/.wh.a"), without(".wh.d")}},
			[]string{"0 d/a=3", "5 d/ 755"},
		},
		"opaque": {[][]entry{{file("d/a", "1"), file("d/e/f", "2")}, {dir("d"), file("d/b", "3"), without("d/.wh..wh..opq"), file("d/c", "4")}},
			[]string{"0 d/b=3", "0 d/c=4", "5 d/ 755"}},
		"opaque root":            {[][]entry{{file("a", "1")}, {file("b", "2"), without(".wh..wh..opq")}}, []string{"0 b=2"}},
		"notes of aufs":          {[][]entry{{file("a", "1")}, {without(".wh..wh.plnk"), without(".wh..wh.aufs")}}, []string{"0 a=1"}},
		"directory becomes file": {[][]entry{{dir("d"), file("d/a", "1")}, {file("d", "2")}}, []string{"0 d=2"}},
		"and a directory again":  {[][]entry{{dir("d"), file("d/a", "1")}, {file("d", "2")}, {dir("d"), file("d/b", "3")}}, []string{"0 d/b=3", "5 d/ 755"}},
		"directory keeps what is in it": {[][]entry{{dir("d"), file("d/a", "1")}, {entry{Header: tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o700}}}},
			[]string{"0 d/a=1", "5 d/ 700"}},
		"hard link across layers": {[][]entry{{file("a", "1")}, {hardlink("b", "a")}}, []string{"0 a=1", "1 b>a"}},
		"hard link outlives its target": {[][]entry{{file("a", "1")}, {hardlink("d/b", "/a"), hardlink("c", "a")}, {file("a", "2")}},
			[]string{"0 a=2", "0 d/b=1", "1 c>d/b", "5 d/ 755"}},
		"hard link goes with its target's whiteout": {[][]entry{{file("a", "1"), hardlink("b", "a")}, {without(".wh.a")}}, []string{"0 b=1"}},
		"hard link to itself":                       {[][]entry{{file("a", "1"), hardlink("a", "./a")}}, []string{"0 a=1"}},
		"hard link to a symbolic link":              {[][]entry{{symlink("s", "x"), hardlink("b", "s")}}, []string{"1 b>s", "2 s>x"}},
		"through a symbolic link":                   {[][]entry{{dir("usr/lib"), symlink("lib", "usr/lib")}, {file("lib/a", "1"), without("lib/.wh.b")}}, []string{"0 usr/lib/a=1", "2 lib>usr/lib", "5 usr/ 755", "5 usr/lib/ 755"}},
		"through an absolute one":                   {[][]entry{{symlink("a/lib", "/usr/lib")}, {file("a/lib/x", "1")}}, []string{"0 usr/lib/x=1", "2 a/lib>/usr/lib", "5 a/ 755", "5 usr/ 755", "5 usr/lib/ 755"}},
		"symbolic link becomes a directory":         {[][]entry{{dir("b"), symlink("a", "b")}, {dir("a"), file("a/x", "1")}}, []string{"0 a/x=1", "5 a/ 755", "5 b/ 755"}},
		"the usual devices":                         {[][]entry{{entry{Header: tar.Header{Name: "dev/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}}, {Header: tar.Header{Name: "f", Typeflag: tar.TypeFifo}}}}, []string{"5 dev/ 755", "6 f"}},
	} {
		t.Run(name, func(t *testing.T) {
			var layers [][]byte
			for _, l := range c.layers {
				layers = append(layers, layerOf(t, l...))
			}
			got, err := world(t, newTree(t), layers...)
			want := append(slices.Clone(c.want), "5 ./ 755")
			slices.Sort(want)
			if err != nil || got != strings.Join(want, "\n") {
				t.Errorf("%v\n%s\nwant\n%s", err, got, strings.Join(want, "\n"))
			}
		})
	}
}

func TestContentSurvivesWhole(t *testing.T) {
	big := strings.Repeat("x", 3<<20) + strings.Repeat("\x00", 5<<20) + "end"
	tree := newTree(t)
	if err := tree.Add(context.Background(), bytes.NewReader(layerOf(t, file("a", big), file("b", "b")))); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	err := tree.Each(func(h *tar.Header, content io.Reader) error {
		if content == nil {
			return nil
		}
		b, err := io.ReadAll(content)
		got[h.Name] = string(b)
		return err
	})
	if err != nil || got["a"] != big || got["b"] != "b" {
		t.Errorf("%v, %d and %q", err, len(got["a"]), got["b"])
	}
}

func TestNothingOfATreeHasAName(t *testing.T) {
	dir := t.TempDir()
	tree := New(dir, Limits{})
	defer tree.Close()
	if err := tree.Add(context.Background(), bytes.NewReader(layerOf(t, file("a", "1"), symlink("b", "/")))); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("there is %s", left[0].Name())
	}
}

func TestCancelledAddEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := newTree(t).Add(ctx, bytes.NewReader(layerOf(t, file("a", "1")))); err == nil {
		t.Error("it went on")
	}
}
