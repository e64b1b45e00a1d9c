package vm

import (
	"os"
	"strings"
	"testing"

	"banger"
	"banger/internal/paths"
)

func (w *world) pins() string {
	w.t.Helper()
	text, err := os.ReadFile(w.Dirs.KnownHosts())
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

func TestHostKeyIsOfTheVMAndNotOfItsName(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox"})
	if _, err := os.Stat(w.Dirs.VM(v.ID).HostKey()); !os.IsNotExist(err) {
		t.Errorf("a creation makes a key: %v", err)
	}
	if _, err := w.HostKey(t.Context(), v.ID); err != nil {
		t.Fatal(err)
	}
	before := w.pins()
	if _, err := w.Rename(t.Context(), v.ID, "tools"); err != nil {
		t.Fatal(err)
	}
	if want := strings.Replace(before, "devbox.vm", "tools.vm", 1); w.pins() != want || want == before {
		t.Errorf("pinned after the renaming:\n%swant\n%s", w.pins(), want)
	}
	if err := w.Delete(t.Context(), v.ID, true); err != nil {
		t.Fatal(err)
	}
	if w.pins() != "" {
		t.Errorf("pinned after the end:\n%s", w.pins())
	}
}

func TestReconcileForgetsKeysOfVMsThatAreGone(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox"})
	if _, err := w.HostKey(t.Context(), v.ID); err != nil {
		t.Fatal(err)
	}
	stays := w.pins()
	if err := w.HostKeys.Host(w.Dirs.VM(v.ID), banger.NewID(), "gone"); err != nil {
		t.Fatal(err)
	}
	w.restart(w.Dirs)
	if err := w.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.pins() != stays {
		t.Errorf("pinned:\n%swant\n%s", w.pins(), stays)
	}
}

func TestHostKeyOfAnotherToolsVMIsNoneOfOurs(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox"})
	if err := os.Remove(w.Dirs.VM(v.ID).Record()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.HostKey(t.Context(), v.ID); banger.CodeOf(err) != banger.NotFound {
		t.Errorf("got %v", err)
	}
}

// raced are keys that something is quicker than, once.
type raced struct {
	HostKeys
	first func()
}

func (r *raced) Host(dir paths.VM, id, name string) error {
	if first := r.first; first != nil {
		r.first = nil
		first()
	}
	return r.HostKeys.Host(dir, id, name)
}

func TestHostKeyOfAVMThatIsDeletedMeanwhileLeavesNothing(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox"})
	before := w.HostKeys
	w.HostKeys = &raced{before, func() {
		if err := w.Delete(t.Context(), v.ID, true); err != nil {
			t.Error(err)
		}
	}}
	if _, err := w.HostKey(t.Context(), v.ID); banger.CodeOf(err) != banger.NotFound {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(string(w.Dirs.VM(v.ID))); !os.IsNotExist(err) {
		t.Errorf("its directory: %v", err)
	}
}

// The row is gone when the key is there: its pin has been forgotten already.
func TestHostKeyIsNotPinnedForAVMThatIsGone(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox"})
	w.HostKeys = &raced{w.HostKeys, func() {
		if err := w.rows.DeleteVM(t.Context(), v.ID); err != nil {
			t.Error(err)
		}
	}}
	if _, err := w.HostKey(t.Context(), v.ID); banger.CodeOf(err) != banger.NotFound {
		t.Errorf("got %v", err)
	}
	if pins := w.pins(); pins != "" {
		t.Errorf("pinned: %s", pins)
	}
}

func TestHostKeyOfAVMThatIsRenamedMeanwhileHasTheNewName(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox"})
	w.HostKeys = &raced{w.HostKeys, func() {
		if _, err := w.Rename(t.Context(), v.ID, "tools"); err != nil {
			t.Error(err)
		}
	}}
	if got, err := w.HostKey(t.Context(), v.ID); err != nil || got.Name != "tools" {
		t.Errorf("%+v, %v", got, err)
	}
	if pins := w.pins(); strings.Contains(pins, "devbox.vm") || !strings.Contains(pins, "tools.vm") {
		t.Errorf("pinned: %s", pins)
	}
}
