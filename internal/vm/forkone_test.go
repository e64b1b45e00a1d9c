package vm

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"banger"
	"banger/internal/shim"
)

// childOf is the id of a VM that is being made.
func (w *world) childOf(name string) (id string) {
	w.t.Helper()
	w.eventually(name+" has a row", func() bool {
		rows, err := w.rows.VMs(w.t.Context())
		i := slices.IndexFunc(rows, func(r banger.VM) bool { return r.Name == name })
		if err != nil || i < 0 {
			return false
		}
		id = rows[i].ID
		return true
	})
	return id
}

// soon is for what must not wait for a fork.
func soon(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), 20*time.Second)
}

// forking is a fork of the VM box under way.
type forking struct {
	said warned
	out  Forks
	err  error
	over chan struct{}
}

func (w *world) forks(id string, count int) *forking {
	f := &forking{over: make(chan struct{})}
	go func() {
		defer close(f.over)
		f.out, f.err = w.Fork(w.t.Context(), id, Fork{Count: count}, &f.said)
	}()
	return f
}

// ends are the ways to end a VM whatever it does.
var ends = map[string]func(context.Context, *world, string) error{
	"delete": func(ctx context.Context, w *world, id string) error { return w.Delete(ctx, id, true) },
	"kill": func(ctx context.Context, w *world, id string) error {
		v, err := w.Kill(ctx, id, "KILL")
		if err == nil && (v.ID != id || v.State != banger.StateStopped) {
			w.t.Errorf("it is said to be %s", v.State)
		}
		return err
	},
}

func TestForkThatIsEndedWhileItStartsKeepsNoOther(t *testing.T) {
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			w, v := parent(t, true)
			w.shims.guest = func(s *fakeShim) {
				if s.launch.Name != "box-2" { // which does not come up
					s.becomes(shim.Running)
				}
			}
			f := w.forks(v.ID, 3)
			w.eventually("they start", func() bool { return len(w.shims.running()) == 4 })
			ctx, cancel := soon(t)
			defer cancel()
			if err := end(ctx, w, w.childOf("box-2")); err != nil {
				w.shims.vms[w.childOf("box-2")].becomes(shim.Running)
				t.Error(err)
			}
			<-f.over
			if f.err != nil || len(f.out.VMs) != 2 || !strings.Contains(f.said.String(), "box-2 was removed meanwhile") {
				t.Errorf("%d forks, %v; it said %q", len(f.out.VMs), f.err, f.said.String())
			}
			w.want("dir vms/box", "dir vms/box-1", "dir vms/box-3", "process box", "process box-1", "process box-3",
				"row box running", "row box-1 running", "row box-3 running")
		})
	}
}

func TestForkThatIsEndedDuringTheSaveWaitsForNoOther(t *testing.T) {
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			w, v := parent(t, true)
			goOn := make(chan struct{})
			release := sync.OnceFunc(func() { close(goOn) })
			w.shims.saving = func(context.Context, *fakeShim) { <-goOn }
			f := w.forks(v.ID, 2)
			ctx, cancel := soon(t)
			defer cancel()
			err := end(ctx, w, w.childOf("box-1"))
			release()
			if <-f.over; err != nil || f.err != nil || len(f.out.VMs) != 1 {
				t.Errorf("ended: %v; %d forks, %v", err, len(f.out.VMs), f.err)
			}
			w.want("dir vms/box", "dir vms/box-2", "process box", "process box-2", "row box running", "row box-2 running")
		})
	}
}

func TestForkOfWhichNoneIsLeftFails(t *testing.T) {
	w, v := parent(t, true)
	w.shims.guest = func(*fakeShim) {}
	f := w.forks(v.ID, 1)
	w.eventually("it starts", func() bool { return len(w.shims.running()) == 2 })
	ctx, cancel := soon(t)
	defer cancel()
	if err := w.Delete(ctx, w.childOf("box-1"), true); err != nil {
		t.Fatal(err)
	}
	<-f.over
	if banger.CodeOf(f.err) != banger.Cancelled || !strings.Contains(f.err.Error(), "cannot fork box: box-1 was removed meanwhile") {
		t.Errorf("got %v", f.err)
	}
	w.want("dir vms/box", "process box", "row box running")
}
