package daemon

import (
	"context"

	"banger/internal/paths"
	"banger/internal/store"
	"banger/internal/vm"
)

// RunWith is Run with another life of VMs; ready is called when the daemon
// answers.
func RunWith(ctx context.Context, dirs paths.Dirs, vms func(*store.Store) vm.Service, ready func()) error {
	o := Options{Dirs: dirs, BuildID: "of the test"}
	if vms != nil {
		o.vms = func(d *daemon) vm.Service { return vms(d.images.store) }
	}
	return run(ctx, o, ready)
}

// ErrAsked is why a daemon does not come up that was asked to end before.
var ErrAsked = errAsked

// KeepDone is how many ended operations are remembered.
const KeepDone = keepDone
