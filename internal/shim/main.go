package shim

import (
	"context"

	"banger/internal/vmm"
)

// Options is what a binary gives its shims.
type Options struct {
	Build  string                                // id of the binary's build
	Driver func(name string) (vmm.Driver, error) // not_found for a name it does not know
}

// Main is the whole life of a shim: it boots what launch.json in dir
// describes, and returns when that has ended. Ending ctx, or SIGTERM, stops
// the VM in good order.
func Main(ctx context.Context, dir string, opts Options) error {
	panic("not yet")
}
