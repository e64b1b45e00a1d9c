package cli

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"banger"
)

func TestCopySides(t *testing.T) {
	for arg, want := range map[string]side{
		"vm:/x": {"vm", "/x"}, "vm:": {"vm", ""}, "./a:b": {"", "./a:b"}, "/a:b": {"", "/a:b"}, "plain": {"", "plain"}, "-": {"", "-"}, ":x": {"", ":x"},
	} {
		if got := parseSide(arg); got != want {
			t.Errorf("%q is %+v, want %+v", arg, got, want)
		}
	}
}

func TestPlacementFollowsDockersRules(t *testing.T) {
	above := func(dir string) kind {
		if dir == "/have" || dir == "/" {
			return directory
		}
		return nothing
	}
	for _, c := range []struct {
		source string
		what   kind
		dest   string
		there  kind
		want   placement
		code   banger.Code
	}{
		{"/a/f", file, "/have/new", nothing, placement{"/have", "new"}, ""},
		{"/a/f", file, "/have/new/", nothing, placement{}, banger.NotFound},
		{"/a/f", file, "/none/new", nothing, placement{}, banger.NotFound},
		{"/a/f", file, "/have/old", file, placement{"/have", "old"}, ""},
		{"/a/f", file, "/have/old/", file, placement{}, banger.Conflict},
		{"/a/f", file, "/have", directory, placement{"/have", "f"}, ""},
		{"/a/d", directory, "/have/new", nothing, placement{"/have", "new"}, ""},
		{"/a/d", directory, "/have/new/", nothing, placement{"/have", "new"}, ""},
		{"/a/d", directory, "/have/old", file, placement{}, banger.Conflict},
		{"/a/d", directory, "/have", directory, placement{"/have", "d"}, ""},
		{"/a/d/", directory, "/have", directory, placement{"/have", "d"}, ""},
		{"/a/d/.", directory, "/have", directory, placement{"/have", "."}, ""},
		{"/a/d/.", directory, "/have/new", nothing, placement{"/have", "new"}, ""},
		{"/", directory, "/have", directory, placement{"/have", "."}, ""},
	} {
		got, err := place(c.source, c.what, c.dest, c.there, above)
		if got != c.want || banger.CodeOf(err) != c.code {
			t.Errorf("%s to %s: %+v, %v; want %+v, %q", c.source, c.dest, got, err, c.want, c.code)
		}
	}
}

func archive(t *testing.T, headers ...tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		h.Mode |= 0o644
		if h.Typeflag == tar.TypeReg {
			h.Size = 4
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte("evil")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// Whatever a guest sends, nothing outside what was asked for changes.
func TestGuestsArchiveCannotLeaveTheDestination(t *testing.T) {
	for name, headers := range map[string][]tar.Header{
		"climbing":      {{Name: "d/../../victim", Typeflag: tar.TypeReg}},
		"absolute":      {{Name: "/victim", Typeflag: tar.TypeReg}},
		"sibling":       {{Name: "victim", Typeflag: tar.TypeReg}},
		"through link":  {{Name: "d/l", Typeflag: tar.TypeSymlink, Linkname: "../.."}, {Name: "d/l/victim", Typeflag: tar.TypeReg}},
		"over link":     {{Name: "d/l", Typeflag: tar.TypeSymlink, Linkname: "../../victim"}, {Name: "d/l", Typeflag: tar.TypeReg}},
		"hard link out": {{Name: "d/l", Typeflag: tar.TypeLink, Linkname: "../victim"}},
		"hard sibling":  {{Name: "d/l", Typeflag: tar.TypeLink, Linkname: "victim"}, {Name: "d/l", Typeflag: tar.TypeReg}},
		"device":        {{Name: "d/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			dest := filepath.Join(top, "dest")
			victims := []string{filepath.Join(top, "victim"), filepath.Join(dest, "victim")}
			if err := os.MkdirAll(filepath.Join(dest, "d"), 0o700); err != nil {
				t.Fatal(err)
			}
			for _, v := range victims {
				if err := os.WriteFile(v, []byte("mine"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := unpack(archive(t, headers...), placement{dest, "d"}, false)
			if err == nil && name != "over link" {
				t.Error("it was accepted")
			}
			for _, v := range victims {
				if got, err := os.ReadFile(v); err != nil || string(got) != "mine" {
					t.Errorf("%s is %q, %v", v, got, err)
				}
			}
			if entries, _ := os.ReadDir(top); len(entries) != 2 {
				t.Errorf("outside the destination: %v", entries)
			}
		})
	}
}

func TestPackedTreeComesBackTheSame(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(from, "sub", "deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from, "sub", "run.sh"), []byte("#!"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(from, "sub", "deep"), 0o500); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("run.sh", filepath.Join(from, "sub", "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(from, "sub", "run.sh"), filepath.Join(from, "sub", "twin")); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := (&packer{}).pack(&b, filepath.Join(from, "sub"), "copy"); err != nil {
		t.Fatal(err)
	}
	if err := unpack(&b, placement{to, "copy"}, false); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(to, "copy", "run.sh"))
	if err != nil || info.Mode().Perm()&0o100 == 0 {
		t.Errorf("run.sh: %v, %v", info, err)
	}
	twin, err := os.Stat(filepath.Join(to, "copy", "twin"))
	if err != nil || !os.SameFile(info, twin) {
		t.Errorf("twin is no link of run.sh: %v", err)
	}
	if target, err := os.Readlink(filepath.Join(to, "copy", "link")); err != nil || target != "run.sh" {
		t.Errorf("link is %q, %v", target, err)
	}
	if deep, err := os.Stat(filepath.Join(to, "copy", "deep")); err != nil || deep.Mode().Perm() != 0o500 {
		t.Errorf("deep: %v, %v", deep, err)
	}
}
