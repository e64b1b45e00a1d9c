package vm

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"banger"
	"banger/internal/layers"
)

// layered is a world whose VM box runs on a disk with this many layers, whose
// base has a second name if it is shared.
func layered(t *testing.T, above int, shared bool) (*world, View) {
	t.Helper()
	w, v := parent(t, true)
	dir := w.Dirs.VM(v.ID)
	for range above {
		if _, err := layers.New(string(dir)); err != nil {
			t.Fatal(err)
		}
	}
	if shared {
		if err := os.Link(dir.Disk(), filepath.Join(t.TempDir(), "other")); err != nil {
			t.Skip("the temporary directory is another file system")
		}
	}
	return w, v
}

func (w *world) layersOf(id string) int {
	w.t.Helper()
	_, above, err := layers.Of(string(w.Dirs.VM(id)))
	if err != nil {
		w.t.Fatal(err)
	}
	return len(above)
}

func TestDiskBecomesOneFileAfterAnEnd(t *testing.T) {
	for _, tt := range []struct {
		above  int
		shared bool
		want   int
	}{{2, false, 0}, {1, true, 1}, {deepest, true, 0}} {
		w, v := layered(t, tt.above, tt.shared)
		if _, err := w.Stop(t.Context(), v.ID, time.Second, quiet{}); err != nil {
			t.Fatal(err)
		}
		w.eventually("it is done", func() bool { return w.layersOf(v.ID) == tt.want })
		w.Manager.close() // which waits
		if got := w.layersOf(v.ID); got != tt.want || w.readDisk(v.ID) != "of the parent" {
			t.Errorf("%+v: %d layers over %q", tt, got, w.readDisk(v.ID))
		}
	}
}

func TestDiskOfAVMThatRunsAgainKeepsItsLayers(t *testing.T) {
	w, v := layered(t, 2, false)
	if _, err := w.Restart(t.Context(), v.ID, time.Second, quiet{}); err != nil {
		t.Fatal(err)
	}
	w.Manager.close()
	if got := w.layersOf(v.ID); got != 2 || w.get(v.ID).State != banger.StateRunning {
		t.Errorf("it has %d layers", got)
	}
}

func TestIdleWorkGivesWay(t *testing.T) {
	var l locks
	ctx, unlock, err := l.lockIdle(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan func())
	go func() {
		unlock, err := l.lock(t.Context(), "x")
		if err != nil {
			t.Error(err)
		}
		got <- unlock
	}()
	<-ctx.Done() // because somebody came
	unlock()
	(<-got)()
	if len(l.held) != 0 {
		t.Errorf("held: %v", l.held)
	}
}
