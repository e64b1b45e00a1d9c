package cli

import (
	"context"
	"os"

	"banger"
	"banger/client"
	"banger/internal/api"
	"banger/internal/paths"
	"banger/internal/shim"
)

// reach finds a VM that runs, or wakes it, and connects to its shim.
func (a *app) reach(ctx context.Context, c *client.Client, ref string) (api.VM, *shim.Client, error) {
	vm, err := c.VM(ctx, ref)
	if err != nil {
		return vm, nil, err
	}
	sh, err := a.reachVM(ctx, c, vm)
	return vm, sh, err
}

func (a *app) reachVM(ctx context.Context, c *client.Client, vm api.VM) (*shim.Client, error) {
	a.vm = vm.Name
	err := reachable(vm)
	if err == nil && vm.State == banger.StateSuspended {
		vm, err = a.wake(ctx, c, vm)
	}
	if err != nil {
		return nil, err
	}
	sh, err := shim.DialAhead(ctx, paths.VM(vm.Dir))
	if saved(paths.VM(vm.Dir)) && (err == nil || banger.CodeOf(err) == banger.NotRunning) {
		// It was suspended since the daemon looked, for being idle perhaps. To start it
		// is to wait until that is done, and then to wake it.
		if err == nil {
			sh.Close()
		}
		if vm, err = a.wake(ctx, c, vm); err != nil {
			return nil, err
		}
		sh, err = shim.DialAhead(ctx, paths.VM(vm.Dir))
	}
	if banger.CodeOf(err) == banger.NotRunning {
		err = notRunning(vm)
	}
	return sh, err
}

// saved says whether a VM's memory lies on the disk, which decides that it is suspended,
// however long its shim takes to end.
func saved(dir paths.VM) bool {
	_, err := os.Stat(dir.Suspended())
	return err == nil
}

// reachable refuses a VM that neither runs nor can be woken.
func reachable(vm api.VM) error {
	switch {
	case vm.State == banger.StatePaused && vm.LastError != "":
		return banger.Errorf(banger.NotRunning, "the VM %s is paused: %s", vm.Name, vm.LastError)
	case vm.State == banger.StatePaused:
		return banger.Errorf(banger.NotRunning, "the VM %s is paused", vm.Name).Hint("banger vm resume %s", vm.Name)
	case vm.State != banger.StateSuspended && !vm.State.Live():
		return notRunning(vm)
	}
	return nil
}

// wake resumes a suspended VM.
func (a *app) wake(ctx context.Context, c *client.Client, vm api.VM) (api.VM, error) {
	a.say("waking %s", vm.Name)
	return c.StartVM(ctx, vm.ID, api.StartVM{Wait: true}, func(e api.Event) {
		if e.Warning != "" {
			a.warn("%s", e.Warning)
		}
	})
}

func notRunning(vm api.VM) error {
	return banger.Errorf(banger.NotRunning, "the VM %s does not run: it is %s", vm.Name, vm.State).
		Hint("banger vm start %s", vm.Name)
}
