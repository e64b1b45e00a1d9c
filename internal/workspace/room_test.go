package workspace

import (
	"os"
	"testing"
)

func TestRoomsThatNobodyHoldsAreClearedAway(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	held, err := newRoom()
	if err != nil {
		t.Fatal(err)
	}
	left, err := newRoom()
	if err != nil {
		t.Fatal(err)
	}
	_ = left.lock.Close() // as the end of its process does
	clearRooms(0)
	if _, err := os.Stat(held.dir); err != nil {
		t.Errorf("one that is held was removed: %v", err)
	}
	if _, err := os.Stat(left.dir); err == nil {
		t.Error("one that was left is still there")
	}
	held.close()
	if _, err := os.Stat(held.dir); err == nil {
		t.Error("one that was closed is still there")
	}
}
