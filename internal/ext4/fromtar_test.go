package ext4

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

type entry struct {
	tar.Header
	content string
}

func file(name, content string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}, content}
}

func tarOf(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func mustFromTar(t *testing.T, archive []byte, opts Options) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fs.ext4")
	if err := FromTar(context.Background(), bytes.NewReader(archive), path, opts); err != nil {
		t.Fatal(err)
	}
	return path
}

// debugfs asks e2fsprogs, which banger needs anyway, what is in a file system.
func debugfs(t *testing.T, path, request string) string {
	t.Helper()
	tool, err := lookTool("debugfs")
	if err != nil {
		t.Skip("debugfs of e2fsprogs is not installed")
	}
	out, err := exec.Command(tool, "-R", request, path).Output()
	if err != nil {
		t.Fatalf("debugfs %s: %v", request, err)
	}
	return string(out)
}

func TestFromTarKeepsWhatFilesAre(t *testing.T) {
	path := mustFromTar(t, tarOf(t,
		entry{Header: tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755}},
		entry{Header: tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o1777, Uid: 7, Gid: 8}},
		entry{tar.Header{Name: "d/f", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 1000, Gid: 70000, Size: 5,
			PAXRecords: map[string]string{"SCHILY.xattr.user.k": "v\x00w"}}, "hello"},
		entry{Header: tar.Header{Name: "d/hard", Typeflag: tar.TypeLink, Linkname: "d/f"}},
		entry{Header: tar.Header{Name: "d/soft", Typeflag: tar.TypeSymlink, Linkname: "../" + strings.Repeat("x", 100)}},
		entry{Header: tar.Header{Name: "d/null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3}},
		entry{tar.Header{Name: "d/" + strings.Repeat("n", 200), Typeflag: tar.TypeReg, Size: 1}, "x"},
	), Options{Unique: true})

	if got := debugfs(t, path, "cat /d/hard"); got != "hello" {
		t.Errorf("the hard link holds %q", got)
	}
	stat := debugfs(t, path, "stat /d/f")
	for _, want := range []string{"Mode:  04755", "User:  1000", "Group: 70000", "Links: 2", "user.k (3)"} {
		if !strings.Contains(stat, want) {
			t.Errorf("no %q in:\n%s", want, stat)
		}
	}
	for request, want := range map[string]string{
		"stat /d":                            "Mode:  01777",
		"cat /d/soft":                        "../" + strings.Repeat("x", 100),
		"stat /d/null":                       "major/minor number: 01:03",
		"cat /d/" + strings.Repeat("n", 200): "x",
	} {
		if got := debugfs(t, path, request); !strings.Contains(got, want) {
			t.Errorf("%s: no %q in:\n%s", request, want, got)
		}
	}
}

func TestFromTarWritesLastOfTwoEntriesOnce(t *testing.T) {
	archive := tarOf(t, file("a", "first, and not empty"), file("b", "b"), file("./a", "last"))
	path := mustFromTar(t, archive, Options{})
	if got := debugfs(t, path, "cat /a"); got != "last" {
		t.Errorf("a holds %q", got)
	}
	if got := debugfs(t, path, "cat /b"); got != "b" {
		t.Errorf("b holds %q", got)
	}
}

func TestFromTarDropsACLsOnly(t *testing.T) {
	path := mustFromTar(t, tarOf(t, entry{tar.Header{Name: "f", Typeflag: tar.TypeReg, Size: 1, PAXRecords: map[string]string{
		"SCHILY.xattr.system.posix_acl_access": "\x02\x00\x00\x00",
		"SCHILY.xattr.security.capability":     "caps",
	}}, "x"}), Options{Unique: true})
	got := debugfs(t, path, "ea_list /f")
	if strings.Contains(got, "posix_acl") || !strings.Contains(got, "security.capability") {
		t.Errorf("extended attributes:\n%s", got)
	}
}

// Of these five entries a named user and a named group keep their id on disk.
func TestFromTarStoresACLsAsADiskHasThem(t *testing.T) {
	acl := "\x02\x00\x00\x00" +
		"\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\xe8\x03\x00\x00" + "\x08\x00\x05\x00\x64\x00\x00\x00" +
		"\x10\x00\x07\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff"
	path := mustFromTar(t, tarOf(t, entry{tar.Header{Name: "f", Typeflag: tar.TypeReg, Size: 1, PAXRecords: map[string]string{
		"SCHILY.xattr.system.posix_acl_access": acl,
		"SCHILY.xattr.trusted.overlay.opaque":  "y",
		"SCHILY.xattr.user.k":                  "v",
	}}, "x"}), Options{Unique: true})
	got := debugfs(t, path, "ea_list /f")
	want := "system.posix_acl_access (32) = 01 00 00 00 01 00 06 00 02 00 04 00 e8 03 00 00 08 00 05 00 64 00 00 00 10 00 07 00 20 00 00 00"
	if !strings.Contains(got, want) || !strings.Contains(got, "user.k (1)") || strings.Contains(got, "overlay") {
		t.Errorf("extended attributes:\n%s", got)
	}
}

func TestFromEntriesTakesADirectoryAfterWhatIsInIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fs.ext4")
	err := FromEntries(context.Background(), path, Options{}, func(add Add) error {
		for _, e := range []entry{file("d/f", "x"), {Header: tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o1777, Uid: 7}}, {Header: tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o750}}} {
			if err := add(&e.Header, strings.NewReader(e.content)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for request, want := range map[string]string{"stat /d": "Mode:  01777", "stat /": "Mode:  0750", "cat /d/f": "x"} {
		if got := debugfs(t, path, request); !strings.Contains(got, want) {
			t.Errorf("%s: no %q in:\n%s", request, want, got)
		}
	}
}

func TestFromEntriesEndsWhenItIsCancelledAmongDirectories(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	added := 0
	err := FromEntries(ctx, filepath.Join(t.TempDir(), "fs.ext4"), Options{}, func(add Add) error {
		for ; added < 10; added++ {
			if err := add(&tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("%d/", added), Mode: 0o755}, nil); err != nil {
				return err
			}
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || added != 1 {
		t.Errorf("%d directories, then: %v", added, err)
	}
}

func TestFromTarRefusesWhatADiskCannotHold(t *testing.T) {
	for name, c := range map[string]struct {
		h    tar.Header
		want string
	}{
		"owner":     {tar.Header{Name: "f", Typeflag: tar.TypeReg, Uid: 1 << 32}, `"f" belongs to 4294967296:0`},
		"long key":  {tar.Header{Name: "f", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"SCHILY.xattr.user." + strings.Repeat("k", 260): "v"}}, "a name of 265 bytes"},
		"attribute": {tar.Header{Name: "f", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"SCHILY.xattr.user.k": strings.Repeat("v", 5000)}}, "could not fit xattr user.k"},
	} {
		dir := t.TempDir()
		err := FromTar(context.Background(), bytes.NewReader(tarOf(t, entry{Header: c.h})), filepath.Join(dir, "fs"), Options{Unique: true})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%s: %s is left", name, left[0].Name())
		}
	}
}

func TestFromTarClampsTimesThatWouldBeWrittenWrong(t *testing.T) {
	for _, c := range []struct{ in, want time.Time }{
		{time.Date(1931, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(0, 0)},
		{time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(1<<31-1, 0)},
		{time.Unix(1<<31-1, 0), time.Unix(1<<31-1, 0)},
	} {
		if got := clampTime(c.in); !got.Equal(c.want) {
			t.Errorf("%v became %v", c.in, got)
		}
	}
	old := file("old", "x")
	old.ModTime = time.Date(1931, 1, 1, 0, 0, 0, 0, time.UTC)
	path := mustFromTar(t, tarOf(t, old), Options{Unique: true})
	if got := debugfs(t, path, "stat /old"); !strings.Contains(got, "mtime: 0x00000000") {
		t.Errorf("stat:\n%s", got)
	}
}

func TestFromTarMakesZerosHolesOfTheHost(t *testing.T) {
	path := mustFromTar(t, tarOf(t, file("zeros", strings.Repeat("\x00", 64<<20)), file("after", "after")), Options{Unique: true})
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if used := info.Sys().(*syscall.Stat_t).Blocks * 512; used > 8<<20 || info.Size() < 64<<20 {
		t.Errorf("%d bytes take %d on the host", info.Size(), used)
	}
	if got := debugfs(t, path, "cat /after"); got != "after" {
		t.Errorf("the file after the hole holds %q", got)
	}
}

func TestFromTarRefusesBadStreamsAndLeavesNothing(t *testing.T) {
	good := tarOf(t, file("f", strings.Repeat("content", 10000)))
	for name, c := range map[string]struct {
		archive []byte
		want    string
	}{
		"truncated":         {good[:30000], "unexpected EOF"},
		"no tar":            {[]byte(strings.Repeat("no tar at all ", 100)), "invalid tar header"},
		"escaping":          {tarOf(t, file("a/../../b", "x")), `"a/../../b" leaves the tree`},
		"escaping hardlink": {tarOf(t, entry{Header: tar.Header{Name: "l", Typeflag: tar.TypeLink, Linkname: "../x"}}), `"l" leaves the tree`},
		"dangling hardlink": {tarOf(t, entry{Header: tar.Header{Name: "l", Typeflag: tar.TypeLink, Linkname: "x"}}), "file not found"},
	} {
		for _, unique := range []bool{true, false} {
			dir := t.TempDir()
			err := FromTar(context.Background(), bytes.NewReader(c.archive), filepath.Join(dir, "fs"), Options{Unique: unique})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s (unique: %v): error %v", name, unique, err)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("%s (unique: %v): %s is left", name, unique, left[0].Name())
			}
		}
	}
}

func TestFromTarEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	path := filepath.Join(t.TempDir(), "fs")
	err := FromTar(ctx, bytes.NewReader(tarOf(t, file("f", "x"))), path, Options{Unique: true})
	if err == nil || ctx.Err() == nil || !strings.Contains(err.Error(), context.Canceled.Error()) {
		t.Errorf("error %v", err)
	}
}
