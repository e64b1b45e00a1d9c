package cli

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
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
		"beside":        {{Name: "d/l", Typeflag: tar.TypeSymlink, Linkname: "../mine"}, {Name: "d/l/victim", Typeflag: tar.TypeReg}},
		"new beside":    {{Name: "d/l", Typeflag: tar.TypeSymlink, Linkname: "../mine"}, {Name: "d/l/new", Typeflag: tar.TypeReg}},
		"mode beside":   {{Name: "d/l", Typeflag: tar.TypeSymlink, Linkname: "../mine"}, {Name: "d/l", Typeflag: tar.TypeDir, Mode: 0o777}},
		"deep beside":   {{Name: "d/l", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "d/l/mine", Typeflag: tar.TypeDir, Mode: 0o777}},
		"hard beside":   {{Name: "d/l", Typeflag: tar.TypeSymlink, Linkname: "../mine"}, {Name: "d/h", Typeflag: tar.TypeLink, Linkname: "d/l/victim"}},
		"old link":      {{Name: "d/old/victim", Typeflag: tar.TypeReg}},
		"in place":      {{Name: "n", Typeflag: tar.TypeSymlink, Linkname: "mine"}, {Name: "n/victim", Typeflag: tar.TypeReg}},
		"mode in place": {{Name: "n", Typeflag: tar.TypeSymlink, Linkname: "mine"}, {Name: "n", Typeflag: tar.TypeDir, Mode: 0o777}},
		"device":        {{Name: "d/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			dest := filepath.Join(top, "dest")
			mine := filepath.Join(dest, "mine")
			victims := []string{filepath.Join(top, "victim"), filepath.Join(dest, "victim"), filepath.Join(mine, "victim")}
			if err := errors.Join(os.MkdirAll(filepath.Join(dest, "d"), 0o700), os.Mkdir(mine, 0o700),
				os.Symlink("../mine", filepath.Join(dest, "d", "old"))); err != nil {
				t.Fatal(err)
			}
			for _, v := range victims {
				if err := os.WriteFile(v, []byte("mine"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			asked := "d"
			if strings.HasSuffix(name, "in place") {
				asked = "n"
			}
			err := unpack(archive(t, headers...), placement{dest, asked}, false)
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
			entries, _ := os.ReadDir(mine)
			if info, err := os.Stat(mine); err != nil || info.Mode().Perm() != 0o700 || len(entries) != 1 {
				t.Errorf("beside what was copied: %v, %v, %v", info, entries, err)
			}
		})
	}
}

func TestALinkOfTheUsersOwnIsCopiedThrough(t *testing.T) {
	for name, headers := range map[string][]tar.Header{
		"d": {{Name: "d", Typeflag: tar.TypeDir}, {Name: "d/f", Typeflag: tar.TypeReg}, {Name: "d/l", Typeflag: tar.TypeLink, Linkname: "d/f"}},
		".": {{Name: ".", Typeflag: tar.TypeDir}, {Name: "d", Typeflag: tar.TypeDir}, {Name: "d/f", Typeflag: tar.TypeReg}},
	} {
		dest := t.TempDir()
		if err := errors.Join(os.Mkdir(filepath.Join(dest, "real"), 0o700), os.Symlink("real", filepath.Join(dest, "d"))); err != nil {
			t.Fatal(err)
		}
		if err := unpack(archive(t, headers...), placement{dest, name}, false); err != nil {
			t.Error(err)
		}
		if got, err := os.ReadFile(filepath.Join(dest, "real", "f")); err != nil || string(got) != "evil" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
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
