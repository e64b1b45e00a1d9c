package vm

import (
	"os"
	"strings"
	"testing"

	"banger"
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
