package cli

import (
	"context"

	"banger"
	"banger/internal/build"
	"banger/internal/daemon"
	"banger/internal/names"
	"banger/internal/paths"
	"banger/internal/shim"
	"banger/internal/template"
	"banger/internal/vmm"
	"banger/internal/vmm/qemu"
)

// Real is what the banger binary links in.
func Real() Deps {
	return Deps{
		Daemon: func(ctx context.Context, dirs paths.Dirs) error {
			return daemon.Run(ctx, daemon.Options{Dirs: dirs, Names: names.Address})
		},
		Shim: func(ctx context.Context, dir string) error {
			return shim.Main(ctx, dir, shim.Options{Build: build.ID(), Driver: driver})
		},
		Template: func(ctx context.Context, spec string) error {
			return template.Main(ctx, spec, driver)
		},
	}
}

// driver finds a driver of this binary by its name.
func driver(name string) (vmm.Driver, error) {
	if d := (qemu.Driver{}); name == d.Name() {
		return d, nil
	}
	return nil, banger.Errorf(banger.NotFound, "this banger has no driver called %q", name)
}
