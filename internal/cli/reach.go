package cli

import (
	"context"

	"banger"
	"banger/client"
	"banger/internal/api"
	"banger/internal/paths"
	"banger/internal/shim"
)

// reach finds a VM that runs and connects to its shim.
func (a *app) reach(ctx context.Context, c *client.Client, ref string) (api.VM, *shim.Client, error) {
	vm, err := c.VM(ctx, ref)
	if err != nil {
		return vm, nil, err
	}
	switch {
	case vm.State == banger.StatePaused:
		return vm, nil, banger.Errorf(banger.NotRunning, "the VM %s is paused", vm.Name).
			Hint("banger vm resume %s", vm.Name)
	case !vm.State.Live():
		return vm, nil, notRunning(vm)
	}
	sh, err := shim.Dial(ctx, paths.VM(vm.Dir))
	if banger.CodeOf(err) == banger.NotRunning {
		err = notRunning(vm)
	}
	return vm, sh, err
}

func notRunning(vm api.VM) error {
	return banger.Errorf(banger.NotRunning, "the VM %s does not run: it is %s", vm.Name, vm.State).
		Hint("banger vm start %s", vm.Name)
}
