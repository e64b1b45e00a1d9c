package shim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"banger/internal/paths"
)

func newConsole(t *testing.T, limit int64) (*consoleLog, paths.VM) {
	t.Helper()
	dir := paths.VM(t.TempDir())
	c, err := openConsoleLog(dir, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c, dir
}

func TestConsoleKeepsTheLastBytesInBoundedSpace(t *testing.T) {
	c, dir := newConsole(t, 1000)
	var all bytes.Buffer
	for i := range 2000 {
		line := fmt.Sprintf("line %d\n", i)
		all.WriteString(line)
		if n, err := c.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatalf("wrote %d, %v", n, err)
		}
	}
	for _, path := range []string{dir.Console(), dir.Console() + ".1"} {
		if st, err := os.Stat(path); err != nil || st.Size() > 1000 {
			t.Fatalf("%s: %v, %v", path, st, err)
		}
	}
	r, err := OpenConsole(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || len(got) < 1000 || !bytes.HasSuffix(all.Bytes(), got) {
		t.Fatalf("%d bytes that are not the end of the console: %v", len(got), err)
	}
}

func TestConsoleTakesAFloodInOneWrite(t *testing.T) {
	c, dir := newConsole(t, 64<<10)
	flood := bytes.Repeat([]byte("x"), 10<<20)
	if n, err := c.Write(flood); n != len(flood) || err != nil {
		t.Fatalf("wrote %d, %v", n, err)
	}
	var total int64
	files, _ := os.ReadDir(string(dir))
	for _, f := range files {
		st, _ := f.Info()
		total += st.Size()
	}
	if total > 128<<10 || cap(c.tail) > 8*consoleTail {
		t.Fatalf("%d bytes on disk, %d in memory", total, cap(c.tail))
	}
}

func TestConsoleGoesOnWhereAnEarlierRunEnded(t *testing.T) {
	c, dir := newConsole(t, 1000)
	_, _ = c.Write([]byte("first\n"))
	c.close()
	c, err := openConsoleLog(dir, 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	_, _ = c.Write([]byte("second\n"))
	if lines, err := ConsoleTail(dir, 5); err != nil || strings.Join(lines, "|") != "first|second" {
		t.Fatalf("%q, %v", lines, err)
	}
}

func TestConsoleThatCannotBeWrittenDoesNotStopTheGuest(t *testing.T) {
	c, dir := newConsole(t, 10)
	if err := os.RemoveAll(string(dir)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Write(make([]byte, 100)); n != 100 || err != nil {
		t.Fatalf("wrote %d, %v", n, err)
	}
}

func TestVMWithoutAConsoleHasAnEmptyOne(t *testing.T) {
	r, err := OpenConsole(paths.VM(t.TempDir()), true)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if text, err := io.ReadAll(r); len(text) != 0 || err != nil {
		t.Fatalf("%q, %v", text, err)
	}
}

func TestFollowerLosesNothingAcrossRotations(t *testing.T) {
	c, dir := newConsole(t, 1000)
	id, err := ownIdentity("test")
	if err != nil {
		t.Fatal(err)
	}
	lock, err := takeLock(dir, id) // the test is the shim: it never ends
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	r, err := OpenConsole(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	for i := range 500 { // each is read before the next is written, so none may be missing
		want := fmt.Sprintf("line %d\n", i)
		_, _ = c.Write([]byte(want))
		var got string
		for len(got) < len(want) {
			n, err := r.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			got += string(buf[:n])
		}
		if got != want {
			t.Fatalf("read %q instead of %q", got, want)
		}
	}
	ended := make(chan error, 1)
	go func() {
		_, err := r.Read(buf)
		ended <- err
	}()
	_ = r.Close()
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Fatalf("a closed reader gave %v", err)
	}
}

func TestLinesForPeopleHoldNoControls(t *testing.T) {
	text := "\x1b]0;title\x07a\tb\r\n" + strings.Repeat("é", 1000) + "\n\xff\n"
	got := lastLines([]byte(text), 3)
	if len(got) != 3 || got[0] != "]0;titlea b" || len([]rune(got[1])) != maxLine+1 || got[2] != "?" {
		t.Fatalf("%q", got)
	}
}
