package artifact

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestLockKeepsOthersOutUntilUnlocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "locks", "x")
	unlock, err := Lock(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Lock(cancelled, path); !errors.Is(err, context.Canceled) {
		t.Errorf("a held lock gave %v", err)
	}
	got := make(chan error)
	go func() {
		unlock, err := Lock(context.Background(), path)
		if err == nil {
			unlock()
		}
		got <- err
	}()
	unlock()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestPublishShowsAllOrKeepsWhatIsThere(t *testing.T) {
	root := t.TempDir()
	final := filepath.Join(root, "entries", "e")
	for i, content := range []string{"first", "second"} {
		built := filepath.Join(root, "built")
		if err := os.MkdirAll(filepath.Join(built, "sub"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(built, "sub", "f"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Publish(built, final); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		if b, _ := os.ReadFile(filepath.Join(final, "sub", "f")); string(b) != "first" {
			t.Errorf("%d: it holds %q", i, b)
		}
		if _, err := os.Stat(built); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%d: what was built is still there: %v", i, err)
		}
	}
}

func TestWriteFileLeavesNoTemporaryFile(t *testing.T) {
	dir := t.TempDir()
	if err := WriteFile(filepath.Join(dir, "f"), []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "d"), []byte("x")); err == nil {
		t.Error("a directory was replaced by a file")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("left: %v", entries)
	}
}
