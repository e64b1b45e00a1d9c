package daemon_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"banger"
	"banger/client"
	"banger/internal/daemon"
	"banger/internal/paths"
	"banger/internal/store"
	"banger/internal/vm"
)

// fakeVMs is a life of VMs that consists of rows. What it does not implement
// panics, as nothing here calls it.
type fakeVMs struct {
	vm.Service
	store  *store.Store
	create func(ctx context.Context, c vm.Create, p vm.Progress) error // in the middle of Create
}

// base is the image of all fake VMs.
var base = banger.Image{ID: banger.NewID(), Name: "base"}

func (f *fakeVMs) Create(ctx context.Context, c vm.Create, p vm.Progress) (vm.View, error) {
	if f.create != nil {
		if err := f.create(ctx, c, p); err != nil {
			return vm.View{}, err
		}
	}
	if err := f.store.UpsertImage(ctx, base); err != nil {
		return vm.View{}, err
	}
	row, err := f.store.ReserveVM(ctx, banger.VM{ID: banger.NewID(), Name: c.Name, ImageID: base.ID, State: banger.StateCreated}, "10.77.0.0/16")
	return vm.View{VM: row, Dir: "/of/" + row.Name}, err
}

func (f *fakeVMs) List(ctx context.Context) ([]vm.View, error) {
	rows, err := f.store.VMs(ctx)
	views := make([]vm.View, len(rows))
	for i, r := range rows {
		views[i].VM = r
	}
	return views, err
}

func (f *fakeVMs) Get(ctx context.Context, id string) (vm.View, error) {
	row, err := f.store.VM(ctx, id)
	return vm.View{VM: row}, err
}

func (f *fakeVMs) Stop(ctx context.Context, id string, timeout time.Duration, p vm.Progress) (vm.View, error) {
	return vm.View{}, banger.Errorf(banger.NotRunning, "cannot stop it within %s", timeout).Hint("first hint").Hint("second")
}

func (f *fakeVMs) Pause(context.Context, string) (vm.View, error) {
	return vm.View{}, errors.New("secret insides")
}

func (f *fakeVMs) Kill(_ context.Context, id, signal string) (vm.View, error) {
	return vm.View{LastError: signal}, nil
}

func (f *fakeVMs) Delete(ctx context.Context, id string, _ bool) error {
	return f.store.DeleteVM(ctx, id)
}
func (f *fakeVMs) Reconcile(context.Context) error { return nil }
func (f *fakeVMs) Run(ctx context.Context) error   { <-ctx.Done(); return nil }

// house is a daemon in this process, on a real socket and a real database.
type house struct {
	dirs   paths.Dirs
	vms    *fakeVMs
	client *client.Client
	stop   func() error // ends the daemon as a signal does and gives what Run returned
}

func tempDirs(t *testing.T) paths.Dirs {
	t.Helper()
	dir := t.TempDir()
	return paths.Dirs{State: dir + "/state", Cache: dir + "/cache", Config: dir + "/config", Runtime: dir + "/run"}
}

// open starts a daemon and waits until it answers.
func open(t *testing.T, vms *fakeVMs) *house {
	t.Helper()
	return openAt(t, tempDirs(t), vms)
}

func openAt(t *testing.T, dirs paths.Dirs, vms *fakeVMs) *house {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan struct{})
	var failed error
	go func() {
		defer close(done)
		failed = daemon.RunWith(ctx, dirs, func(s *store.Store) vm.Service { vms.store = s; return vms }, func() { close(ready) })
	}()
	h := &house{dirs: dirs, vms: vms, stop: func() error { cancel(); <-done; return failed }}
	select {
	case <-ready:
	case <-done:
		t.Fatal(failed)
	}
	c, err := client.Dial(context.Background(), dirs.Socket())
	if err != nil {
		t.Fatal(err)
	}
	h.client = c
	t.Cleanup(func() {
		c.Close()
		if err := h.stop(); err != nil {
			t.Error(err)
		}
	})
	return h
}
