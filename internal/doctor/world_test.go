package doctor

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// about gives the rows of the world that speak of something.
func (e *exam) about(t *testing.T, words string) (found []Row) {
	t.Helper()
	e.rows, e.Pause = nil, time.Millisecond
	e.world(t.Context())
	for _, r := range e.rows {
		if strings.Contains(r.Detail, words) {
			found = append(found, r)
		}
	}
	return found
}

// Between the directory's move to the trash and the end of the row may be some time.
func TestVMThatIsBeingDeletedIsNoDamage(t *testing.T) {
	e := newExam(t)
	furnished(t, e.dirs)
	vms, _ := filepath.Glob(e.dirs.VMs() + "/[0-9a-f]*")
	id := filepath.Base(vms[0])
	trash := filepath.Join(e.dirs.VMTrash(), id)
	if err := os.Mkdir(e.dirs.VMTrash(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(vms[0], trash); err != nil {
		t.Fatal(err)
	}
	if found := e.about(t, id); len(found) != 1 || found[0].Verdict != Warn || !strings.Contains(found[0].Detail, "a deletion that was not finished") {
		t.Errorf("of a deletion that nobody finishes it says %+v", found)
	}
	e.Daemon = func(context.Context) *Daemon { return &Daemon{Busy: []string{"vm.stop"}} }
	if found := e.about(t, id); len(found) > 0 {
		t.Errorf("of one that may be under way it says %+v", found)
	}
	if err := os.RemoveAll(trash); err != nil {
		t.Fatal(err)
	}
	if found := e.about(t, id); len(found) != 1 || found[0].Verdict != Fail || found[0].Fix.Action != DeleteVM {
		t.Errorf("of a directory that is gone it says %+v", found)
	}
}
