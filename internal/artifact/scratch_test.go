package artifact

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestADirectoryOfADeadProcessGoesAtOnce(t *testing.T) {
	dir := t.TempDir()
	s, err := NewScratch(dir, "kernel")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := os.WriteFile(filepath.Join(s.Dir, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if found := Stale(dir); len(found) > 0 {
		t.Errorf("in use: %v", found)
	}
	if err := ClearStale(dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.Dir); err != nil {
		t.Fatalf("in use, and gone: %v", err)
	}
	s.lock.Close() // as the end of the process does
	if found := Stale(dir); len(found) != 1 || found[0] != s.Dir {
		t.Errorf("left: %v", found)
	}
	other, err := NewScratch(dir, "deb")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.Dir); err != nil {
		t.Error("another's was removed")
	}
	other.Close()
	again, err := NewScratch(dir, "kernel")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.Dir); err == nil {
		t.Error("the next one of its name leaves it")
	}
	again.lock.Close()
	if err := ClearStale(dir); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("still there: %v", left)
	}
}

// Who clears away comes between the making of a directory and its lock.
func TestNobodyLosesADirectoryThatWasJustMade(t *testing.T) {
	dir := t.TempDir()
	stop := make(chan struct{})
	var clearing sync.WaitGroup
	clearing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				found, _ := filepath.Glob(filepath.Join(dir, "*"))
				for _, path := range found {
					_ = clearOne(path)
				}
			}
		}
	})
	for range 500 {
		s, err := NewScratch(dir, "x")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.Dir, "f"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	close(stop)
	clearing.Wait()
}
