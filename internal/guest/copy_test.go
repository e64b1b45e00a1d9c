package guest

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger/internal/guestwire"
)

func (a *served) put(t *testing.T, c guestwire.Copy, stream []byte) error {
	t.Helper()
	body, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.Open(guestwire.KindPut, body)
	if err != nil {
		t.Fatal(err)
	}
	w := s.Writer(0)
	_, _ = w.Write(stream) // fails when the agent has refused it already
	_ = w.Close()
	_, err = s.Wait(context.Background())
	return err
}

func (a *served) get(t *testing.T, c guestwire.Copy) ([]byte, error) {
	t.Helper()
	body, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.Open(guestwire.KindGet, body)
	if err != nil {
		t.Fatal(err)
	}
	stream, _ := io.ReadAll(s.Reader(0))
	_, err = s.Wait(context.Background())
	return stream, err
}

// archive makes a tar stream of headers, each with its content.
func archive(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		content := []byte(nil)
		if h.Typeflag == tar.TypeReg {
			content = bytes.Repeat([]byte("x"), int(h.Size))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestTreeSurvivesBothWays(t *testing.T) {
	a := serveAgent(t)
	from, to := filepath.Join(a.dir, "from"), filepath.Join(a.dir, "to")
	long := strings.Repeat("long-", 40)
	when := time.Unix(1_600_000_000, 123_456_789)
	makeTree(t, from, long, when)
	stream, err := a.get(t, guestwire.Copy{Path: from, Name: "tree"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(to, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := a.put(t, guestwire.Copy{Path: to}, stream); err != nil {
		t.Fatal(err)
	}
	checkTree(t, filepath.Join(to, "tree"), long, when)
}

// checkTree says whether a tree is as makeTree made it.
func checkTree(t *testing.T, to, long string, when time.Time) {
	t.Helper()
	if got, err := os.ReadFile(filepath.Join(to, "dir", long)); err != nil || string(got) != "content" {
		t.Fatalf("long name holds %q, %v", got, err)
	}
	for name, mode := range map[string]os.FileMode{"dir": os.ModeDir | 0o550, "setuid": os.ModeSetuid | 0o755, "sparse": 0o600} {
		info, err := os.Lstat(filepath.Join(to, name))
		if err != nil || info.Mode() != mode || !info.ModTime().Equal(when) {
			t.Errorf("%s has mode %v, time %v, %v", name, info.Mode(), info.ModTime(), err)
		}
	}
	if target, err := os.Readlink(filepath.Join(to, "link")); target != "no/where" {
		t.Errorf("link leads to %q, %v", target, err)
	}
	one, _ := os.Stat(filepath.Join(to, "setuid"))
	two, _ := os.Stat(filepath.Join(to, "zhard"))
	if !os.SameFile(one, two) {
		t.Error("the hard link is a copy")
	}
	checkSparse(t, filepath.Join(to, "sparse"))
}

func makeTree(t *testing.T, dir, long string, when time.Time) {
	t.Helper()
	file := func(name, content string, mode os.FileMode) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Chmod(path, mode), os.Chtimes(path, when, when)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	file("dir/"+long, "content", 0o644)
	file("setuid", "program", 0o755|os.ModeSetuid)
	file("sparse", strings.Repeat("\x00", 1<<20)+"end", 0o600)
	err := errors.Join(
		os.Link(filepath.Join(dir, "setuid"), filepath.Join(dir, "zhard")),
		os.Symlink("no/where", filepath.Join(dir, "link")),
		os.Chmod(filepath.Join(dir, "dir"), 0o550),
		os.Chtimes(filepath.Join(dir, "dir"), when, when))
	if err != nil {
		t.Fatal(err)
	}
	// Or an ordinary user could not remove it.
	t.Cleanup(func() {
		for _, name := range []string{"dir", "../to/dir", "../to/tree/dir"} {
			_ = os.Chmod(filepath.Join(dir, name), 0o755)
		}
	})
}

func checkSparse(t *testing.T, file string) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil || len(content) != 1<<20+3 || !bytes.HasSuffix(content, []byte("\x00end")) {
		t.Fatalf("the sparse file holds %d bytes, %v", len(content), err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if used := info.Sys().(*syscall.Stat_t).Blocks * 512; used > 512<<10 {
		t.Errorf("%d bytes are in use", used)
	}
}

func TestPutRefusesWhatLeadsOut(t *testing.T) {
	a := serveAgent(t)
	outside := t.TempDir()
	for name, entries := range map[string][]tar.Header{
		"dots":          {{Name: "a/../../evil", Typeflag: tar.TypeReg, Size: 3, Mode: 0o644}},
		"absolute link": {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: outside}, {Name: "l/evil", Typeflag: tar.TypeReg, Size: 3, Mode: 0o644}},
		"relative link": {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../.."}, {Name: "l/evil", Typeflag: tar.TypeReg, Size: 3, Mode: 0o644}},
		"hard link":     {{Name: "h", Typeflag: tar.TypeLink, Linkname: "../../../etc/passwd"}},
		"device":        {{Name: "d", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}},
		"fifo":          {{Name: "f", Typeflag: tar.TypeFifo}},
	} {
		t.Run(name, func(t *testing.T) {
			target := filepath.Join(t.TempDir(), "one", "two")
			if err := os.MkdirAll(target, 0o755); err != nil {
				t.Fatal(err)
			}
			err := a.put(t, guestwire.Copy{Path: target}, archive(t, entries...))
			if last := entries[len(entries)-1].Name; err == nil || !strings.Contains(err.Error(), last) {
				t.Fatalf("got %v", err)
			}
			for _, dir := range []string{outside, filepath.Dir(target), filepath.Dir(filepath.Dir(target))} {
				if _, err := os.Lstat(filepath.Join(dir, "evil")); err == nil {
					t.Fatalf("something was written to %s", dir)
				}
			}
		})
	}
}

func TestPutReplacesFilesButNotDirectories(t *testing.T) {
	a := serveAgent(t)
	if err := errors.Join(
		os.WriteFile(filepath.Join(a.dir, "file"), []byte("old"), 0o600),
		os.Mkdir(filepath.Join(a.dir, "dir"), 0o755)); err != nil {
		t.Fatal(err)
	}
	file := tar.Header{Name: "file", Typeflag: tar.TypeReg, Size: 5, Mode: 0o640}
	if err := a.put(t, guestwire.Copy{Path: a.dir}, archive(t, file)); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(filepath.Join(a.dir, "file")); string(got) != "xxxxx" {
		t.Fatalf("the file holds %q", got)
	}
	var f *guestwire.Failure
	overDir := tar.Header{Name: "dir", Typeflag: tar.TypeReg, Mode: 0o640}
	if err := a.put(t, guestwire.Copy{Path: a.dir}, archive(t, overDir)); !errors.As(err, &f) || f.Code != "conflict" {
		t.Fatalf("file over directory: %v", err)
	}
	overFile := tar.Header{Name: "file", Typeflag: tar.TypeDir, Mode: 0o750}
	if err := a.put(t, guestwire.Copy{Path: a.dir}, archive(t, overFile)); !errors.As(err, &f) || f.Code != "conflict" {
		t.Fatalf("directory over file: %v", err)
	}
}

func TestMissingPathsAreNotFound(t *testing.T) {
	a := serveAgent(t)
	var f *guestwire.Failure
	if err := a.put(t, guestwire.Copy{Path: "/no/such/place"}, nil); !errors.As(err, &f) || f.Code != "not_found" {
		t.Fatalf("put: %v", err)
	}
	if _, err := a.get(t, guestwire.Copy{Path: "/no/such/place"}); !errors.As(err, &f) || f.Code != "not_found" {
		t.Fatalf("get: %v", err)
	}
	var st guestwire.FileStat
	if err := a.call(t, guestwire.MethodStat, guestwire.StatRequest{Path: "/no/such/place"}, &st); err != nil || st.Exists {
		t.Fatalf("stat: %+v, %v", st, err)
	}
	if err := a.call(t, guestwire.MethodStat, guestwire.StatRequest{Path: a.dir}, &st); err != nil || !st.Exists || !st.Dir {
		t.Fatalf("stat: %+v, %v", st, err)
	}
}

func TestTruncatedStreamIsAnError(t *testing.T) {
	a := serveAgent(t)
	whole := archive(t, tar.Header{Name: "file", Typeflag: tar.TypeReg, Size: 5000, Mode: 0o640})
	if err := a.put(t, guestwire.Copy{Path: a.dir}, whole[:2000]); err == nil {
		t.Fatal("half a stream was taken for a whole one")
	}
}

// The way to a directory is remembered from one entry to the next, but not past
// a link that may have changed it.
func TestPutFollowsALinkThatIsReplacedInTheStream(t *testing.T) {
	a := serveAgent(t)
	err := a.put(t, guestwire.Copy{Path: a.dir}, archive(t,
		tar.Header{Name: "one/", Typeflag: tar.TypeDir, Mode: 0o755},
		tar.Header{Name: "two/", Typeflag: tar.TypeDir, Mode: 0o755},
		tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "one"},
		tar.Header{Name: "link/a", Typeflag: tar.TypeReg, Size: 1, Mode: 0o644},
		tar.Header{Name: "link/b", Typeflag: tar.TypeReg, Size: 1, Mode: 0o644},
		tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "two"},
		tar.Header{Name: "link/c", Typeflag: tar.TypeReg, Size: 1, Mode: 0o644}))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one/a", "one/b", "two/c"} {
		if _, err := os.Stat(filepath.Join(a.dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestDirectoriesOnTheWayAreWhoseTheFilesAre(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root gives files away")
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "home"), 0o755); err != nil {
		t.Fatal(err)
	}
	var stream bytes.Buffer
	w := tar.NewWriter(&stream)
	for _, name := range []string{"home/repo/sub/file", "home/other/link"} {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}
		if filepath.Base(name) == "link" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, "nowhere"
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	x := &unpacker{root: root, dir: dir, uid: 4711, gid: 4712}
	if err := errors.Join(w.Close(), x.all(tar.NewReader(&stream))); err != nil {
		t.Fatal(err)
	}
	x.leave()
	owners := map[string]uint32{"home": 0, "home/repo": 4711, "home/repo/sub": 4711, "home/repo/sub/file": 4711, "home/other": 4711, "home/other/link": 4711}
	for name, want := range owners {
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Sys().(*syscall.Stat_t).Uid; got != want {
			t.Errorf("%s belongs to %d, want %d", name, got, want)
		}
	}
}
