package guest

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestChangesAreCountedFromAMoment(t *testing.T) {
	dir := t.TempDir()
	write := func(name string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(name), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(name string) { // as overlayfs does, with one inode for all
		t.Helper()
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if _, statErr := os.Stat(filepath.Join(dir, "gone/before")); statErr == nil {
			err = errors.Join(err, os.Link(filepath.Join(dir, "gone/before"), path))
		} else if mkErr := unix.Mknod(path, unix.S_IFCHR, 0); mkErr != nil {
			t.Skip("cannot make a device here: ", mkErr)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	expect := func(since int64, want int) {
		t.Helper()
		if n, err := countChanged(dir, since); err != nil || n != want {
			t.Fatalf("%d files changed, %v; want %d", n, err, want)
		}
	}
	write("old")
	write("sub/old")
	remove("gone/before")
	moment := nextTick()
	expect(moment, 0)
	write("new")
	write("sub/old")
	expect(moment, 2)
	remove("sub/gone")
	expect(moment, 3)
	expect(nextTick(), 0)
}
