package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"banger/internal/bench"
	"banger/internal/paths"
	"banger/test/world"
)

// How often things are done.
const (
	slow  = 10 // what takes seconds
	quick = 30
)

// benchmark is one run over one installation.
type benchmark struct {
	ctx     context.Context // ends it
	w       *world.World
	n       int          // how often each thing is done, or 0
	tap     string       // for a Firecracker by hand, or ""
	floor   *bench.Floor // of the VM bench
	machine string       // on which VMM it runs, and how
}

// often is how often to do what is done so often where nobody says otherwise.
func (b *benchmark) often(usual int) int { return cmp.Or(b.n, usual) }

// useVMM has the installation's VMs run on a VMM.
func useVMM(w *world.World, name string) error {
	dir := filepath.Join(w.Home, ".config/banger")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.toml"), fmt.Appendf(nil, "vmm = %q\n", name), 0o600)
}

// prepare makes the VM that most lines are about. It runs only where one needs it.
func (b *benchmark) prepare() error {
	if err := b.command("vm", "create", "--name", "bench")(); err != nil {
		return err
	}
	vm, err := b.look("bench")
	if err != nil {
		return err
	}
	b.machine = vm.Runtime.VMM + " under " + vm.Runtime.Accel
	if b.floor, err = bench.OpenFloor(b.ctx, paths.VM(vm.Dir)); err != nil {
		return err
	}
	return b.command("stop", "bench")()
}

func (b *benchmark) close() error {
	if b.floor == nil {
		return nil
	}
	return b.floor.Close()
}

// running is what `vm show` says of a VM.
type running struct {
	Name     string `json:"name"`
	Dir      string `json:"dir"`
	ShimPID  int    `json:"shim_pid"`
	VMMPID   int    `json:"vmm_pid"`
	Template string `json:"template"` // it is a fork of
	Runtime  struct {
		VMM   string `json:"vmm"`
		Accel string `json:"accel"`
	} `json:"runtime"`
}

func (b *benchmark) look(name string) (vm running, err error) {
	return vm, b.answer(&vm, "vm", "show", name)
}

// up has the VM bench run, with a guest that is warm.
func (b *benchmark) up() (running, error) {
	for _, args := range [][]string{{"start", "bench"}, {"exec", "bench", "--", "true"}} {
		if err := b.command(args...)(); err != nil {
			return running{}, err
		}
	}
	return b.look("bench")
}

// command is a figure: a banger command that has to succeed.
func (b *benchmark) command(args ...string) func() error {
	return func() error {
		_, err := b.output(args...)
		return err
	}
}

// output is what a command writes that has to succeed. An interrupt ends the
// command first, or it is over soon.
func (b *benchmark) output(args ...string) (string, error) {
	if b.ctx.Err() != nil {
		return "", context.Cause(b.ctx)
	}
	r := b.w.Banger(args...)
	if r.Status != 0 {
		return "", errors.Join(fmt.Errorf("banger %s: status %d: %s", strings.Join(args, " "), r.Status, r.Stderr), context.Cause(b.ctx))
	}
	return r.Stdout, nil
}

// answer decodes the JSON that a command prints.
func (b *benchmark) answer(into any, args ...string) error {
	out, err := b.output(args...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), into)
}

// pause waits, unless the benchmark ends.
func (b *benchmark) pause(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-b.ctx.Done():
		return context.Cause(b.ctx)
	}
}

// timed runs f n times.
func timed(n int, f func() error) ([]time.Duration, error) {
	var all []time.Duration
	for range n {
		began := time.Now()
		if err := f(); err != nil {
			return nil, err
		}
		all = append(all, time.Since(began))
	}
	return all, nil
}

// inTurn runs each of some functions n times, one after the other, so that all
// see the same host.
func inTurn(n int, functions ...func() error) ([][]time.Duration, error) {
	all := make([][]time.Duration, len(functions))
	for range n {
		for i, f := range functions {
			one, err := timed(1, f)
			if err != nil {
				return nil, err
			}
			all[i] = append(all[i], one...)
		}
	}
	return all, nil
}
