package cli

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestFilesAreWrittenWholeOrNotAtAll(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.Symlink("file", link); err != nil {
		t.Fatal(err)
	}
	put := func(text string, fails error) func(io.Writer) error {
		return func(w io.Writer) error { _, err := io.WriteString(w, text); return errors.Join(err, fails) }
	}
	holds := func(want string, mode os.FileMode) {
		t.Helper()
		got, _ := os.ReadFile(file)
		info, err := os.Stat(file)
		if string(got) != want || err != nil && want != "" || err == nil && info.Mode() != mode {
			t.Errorf("it holds %q, %v, %v; want %q, %v", got, info, err, want, mode)
		}
		if entries, _ := os.ReadDir(dir); len(entries) > 2 {
			t.Errorf("more is there: %v", entries)
		}
	}
	broken := errors.New("broken")
	if err := writeWhole(file, put("half", broken)); !errors.Is(err, broken) {
		t.Error(err)
	}
	holds("", 0)
	if err := writeWhole(file, put("first", nil)); err != nil {
		t.Error(err)
	}
	holds("first", 0o666&^umask())
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeWhole(link, put("second", nil)); err != nil {
		t.Error(err)
	}
	holds("second", 0o600)
	if err := writeWhole(link, put("half", broken)); !errors.Is(err, broken) {
		t.Error(err)
	}
	holds("second", 0o600)
	if info, _ := os.Lstat(link); info.Mode().Type() != os.ModeSymlink {
		t.Error("the link became a file")
	}
	if err := writeWhole(dir, put("x", nil)); err == nil {
		t.Error("a directory was written to")
	}
	if err := writeWhole("/dev/null", put("x", nil)); err != nil {
		t.Error(err)
	}
	if err := writeWhole(filepath.Join(dir, "no/such"), put("x", nil)); err == nil {
		t.Error("a directory that is not there was written to")
	}
}

// The test runs itself as the process that is killed while it writes.
func TestAWriteThatIsKilledLeavesNothing(t *testing.T) {
	const where = "BANGER_TEST_WRITE_TO"
	if file := os.Getenv(where); file != "" {
		err := writeWhole(file, func(w io.Writer) error {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return err
			}
			return syscall.Kill(os.Getpid(), syscall.SIGKILL)
		})
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), where+"="+filepath.Join(dir, "file"))
	if out, err := cmd.CombinedOutput(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("it was not killed: %v\n%s", err, out)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestFilesThatNobodyFinishesGo(t *testing.T) {
	dir := t.TempDir()
	long := time.Now().Add(-time.Hour)
	age := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.Chtimes(path, long, long); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write := func(name string) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{".banger-1.part", ".banger-new.part", ".bangerinclude", ".banger-notes"} {
		write(name)
	}
	age(".banger-1.part")
	age(".banger-notes")
	being, err := named(dir) // which removes the first
	if err != nil {
		t.Fatal(err)
	}
	defer being.Close()
	age(filepath.Base(being.Name()))
	removeUnfinished(dir)
	entries, _ := os.ReadDir(dir)
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	want := []string{filepath.Base(being.Name()), ".banger-new.part", ".banger-notes", ".bangerinclude"}
	slices.Sort(want)
	if !slices.Equal(left, want) {
		t.Errorf("left are %q, not %q", left, want)
	}
	if err := name(being, filepath.Join(dir, "file")); err != nil {
		t.Error(err)
	}
}

func TestWhatIsSpooledComesWholeOrNotAtAll(t *testing.T) {
	broken := errors.New("broken")
	var out strings.Builder
	dir := filepath.Join(t.TempDir(), "cache")
	err := spool(dir, &out, func(w io.Writer) error { _, err := io.WriteString(w, "half"); return errors.Join(err, broken) })
	if !errors.Is(err, broken) || out.Len() > 0 {
		t.Errorf("%v, written was %q", err, out.String())
	}
	if err := spool(dir, &out, func(w io.Writer) error { _, err := io.WriteString(w, "all"); return err }); err != nil || out.String() != "all" {
		t.Errorf("%v, written was %q", err, out.String())
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	chunk := make([]byte, 1<<20)
	if err := spool(dir, io.Discard, func(w io.Writer) error {
		for range 64 {
			if _, err := w.Write(chunk); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 4<<20 {
		t.Errorf("64 MiB took %d bytes of memory", took)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
