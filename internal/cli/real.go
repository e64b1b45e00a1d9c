package cli

import (
	"context"

	"banger"
	"banger/internal/build"
	"banger/internal/daemon"
	"banger/internal/layers"
	"banger/internal/names"
	"banger/internal/paths"
	"banger/internal/shim"
	"banger/internal/template"
	"banger/internal/vmm"
	"banger/internal/vmm/firecracker"
	"banger/internal/vmm/qemu"
	"banger/internal/vnet"
	"banger/internal/vnet/reach"
)

// Real is what the banger binary links in.
func Real() Deps {
	return Deps{
		Daemon: func(ctx context.Context, dirs paths.Dirs) error {
			return daemon.Run(ctx, daemon.Options{Dirs: dirs, Names: names.Address, Self: "/proc/self/exe"})
		},
		Shim: func(ctx context.Context, dir string) error {
			return shim.Main(ctx, dir, shim.Options{
				Build: build.ID(), Driver: driver,
				Network: func(s reach.Site) (shim.Wire, error) { return vnet.OnHost(s) },
				Layers:  shim.Layers{Of: layers.Of, Flatten: layers.Flatten, Take: layers.Take},
			})
		},
		Template: func(ctx context.Context, spec string) error {
			return template.Main(ctx, spec, driver)
		},
		Instead: map[string]func([]string) error{firecracker.CardProgram: firecracker.Card},
	}
}

// driver finds a driver of this binary by its name.
func driver(name string) (vmm.Driver, error) {
	for _, d := range []vmm.Driver{qemu.Driver{}, firecracker.Driver{}} {
		if name == d.Name() {
			return d, nil
		}
	}
	return nil, banger.Errorf(banger.NotFound, "this banger has no driver called %q", name)
}
