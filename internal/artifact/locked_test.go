package artifact

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLockedLooksWithoutTaking(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	want := func(want bool) {
		t.Helper()
		if got, err := Locked(path); err != nil || got != want {
			t.Errorf("locked is %v (%v), want %v", got, err, want)
		}
	}
	want(false)
	if _, err := os.Stat(path); err == nil {
		t.Error("looking made the file")
	}
	unlock, err := Lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	want(true)
	if _, ok, err := TryLock(path); ok || err != nil {
		t.Errorf("took a lock that is held: %v, %v", ok, err)
	}
	unlock()
	want(false)
	unlock, ok, err := TryLock(path)
	if !ok || err != nil {
		t.Fatalf("cannot take a free lock: %v", err)
	}
	want(true)
	unlock()
}
