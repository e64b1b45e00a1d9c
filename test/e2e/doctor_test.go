package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// doctor gives what the doctor has to say of the world, and its status.
func (w home) doctor(args ...string) (said string, status int) {
	r := w.Banger(append([]string{"doctor"}, args...)...)
	return r.Stdout, r.Status
}

// Real VMs come and go, one of them is killed, and a template loses a bit: the
// doctor names what is wrong and nothing else, and has it put right.
func TestDoctorOverRealVMs(t *testing.T) {
	t.Parallel()
	w := borrowedWorld(t, "doctor")
	w.start(t, "steady", "--memory", "256")
	before := w.show(t, "steady")

	var over atomic.Bool
	go func() {
		defer over.Store(true)
		for range 3 {
			w.Banger("run", "--rm", "--memory", "256", "--", "true")
		}
	}()
	for !over.Load() {
		if said, status := w.doctor(); status != 0 || strings.Contains(said, "orphan") || strings.Contains(said, "damage") {
			t.Fatalf("while VMs come and go: status %d\n%s", status, said)
		}
	}

	w.start(t, "victim", "--memory", "256")
	kill(t, w.show(t, "victim").ShimPID)
	if templates, _ := filepath.Glob(filepath.Join(w.Home, ".cache/banger/templates/[0-9a-f]*/memory")); len(templates) > 0 {
		f, err := os.OpenFile(templates[0], os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteAt([]byte("X"), 30<<20)
		}
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if said, _ := w.doctor("--verify"); !strings.Contains(said, "is damaged") {
			t.Errorf("a changed template is not found:\n%s", said)
		}
	}
	if said, _ := w.doctor(); !strings.Contains(said, "the socket of victim, which no shim has") {
		t.Errorf("a killed shim is not found:\n%s", said)
	}
	said, status := w.doctor("--verify", "--fix", "-f")
	if status != 0 || strings.Contains(said, "orphan") || strings.Contains(said, "damage") {
		t.Errorf("after the repair: status %d\n%s", status, said)
	}
	if after := w.showAdopted(t, "steady"); after.ShimPID != before.ShimPID || after.BootID != before.BootID {
		t.Errorf("a VM that ran was touched: %+v, then %+v", before, after)
	}
	if state := w.show(t, "victim").State; state != "error" {
		t.Errorf("the victim is %s", state)
	}
}
