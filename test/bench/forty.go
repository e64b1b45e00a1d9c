package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"banger/internal/bench"
	"banger/internal/paths"
)

// forty measures many VMs that do nothing: whether they answer, their memory, and
// what they use of the CPU.
func (b *benchmark) forty() error {
	const count, window = 40, time.Minute
	if err := b.awaitSmall(); err != nil {
		return err
	}
	var vms []running
	args := []string{"rm", "-f"}
	for i := range count {
		vm, err := b.small(fmt.Sprintf("bench-%d", i+1))
		if err != nil {
			return err
		}
		if vm.Template == "" {
			return fmt.Errorf("%s is no fork of a template", vm.Name)
		}
		vms, args = append(vms, vm), append(args, vm.Name)
	}
	before := usedBy(vms)
	if err := b.pause(window); err != nil {
		return err
	}
	cpu := share(usedBy(vms)-before, window)
	pings, most := make([]time.Duration, count), 0.0
	for i, vm := range vms {
		one, err := timed(1, b.command("vm", "ping", vm.Name))
		if err != nil {
			return err
		}
		pings[i] = one[0]
	}
	for _, vm := range vms {
		most = max(most, vm.owned())
	}
	row{what: "40 idle VMs: slowest vm ping", n: count, unit: ms, figure: millis(slices.Max(pings)), most: 200}.print()
	row{what: "  most memory of one with its shim (PSS)", n: count, unit: mib, figure: most, most: shareBound}.print()
	row{what: "  CPU of all over 60 s", n: 1, unit: percent, figure: cpu, most: 40}.print()
	return b.command(args...)()
}

const smallMiB = "512"

func (b *benchmark) small(name string) (running, error) {
	if err := b.command("vm", "create", "--name", name, "--memory", smallMiB)(); err != nil {
		return running{}, err
	}
	return b.look(name)
}

// awaitSmall waits until there is a template of the small shape.
func (b *benchmark) awaitSmall() error {
	vm, err := b.small("bench-shape")
	if err != nil || vm.Template != "" {
		return errors.Join(err, b.command("rm", "-f", "bench-shape")())
	}
	floor, err := bench.OpenFloor(b.ctx, paths.VM(vm.Dir))
	if err != nil {
		return err
	}
	pool := b.templates()
	defer pool.Close()
	fork, err := b.awaitTemplate(floor, pool)
	if err == nil {
		err = fork.Close()
	}
	return errors.Join(err, floor.Close(), b.command("rm", "-f", "bench-shape")())
}

// usedBy is the CPU time of VMs and their shims so far.
func usedBy(vms []running) (used time.Duration) {
	for _, vm := range vms {
		used += cpuTime(vm.ShimPID) + cpuTime(vm.VMMPID)
	}
	return used
}
