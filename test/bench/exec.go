package main

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"
)

// exec measures a whole `vm exec`, beside an exec over a bare link to a guest
// of the same kind, and beside one over the VM's own shim: what is above that
// is CLI and daemon. The three are run in turn, so that all see the same
// machine.
func (b *benchmark) exec() (err error) {
	vm, err := b.up()
	if err != nil {
		return err
	}
	if err := b.floor.Boot(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.floor.End()) }()
	if err := b.floor.Exec(); err != nil {
		return err
	}
	all, err := inTurn(b.often(quick), b.floor.Exec, execThroughShim(vm.Dir), b.command("exec", "bench", "--", "true"))
	if err != nil {
		return err
	}
	floors, shims, figures := all[0], all[1], all[2]
	exec := medians("vm exec -- true (floor: over the bare link)", 55*time.Millisecond, figures, floors)
	exec.times = 1.3
	exec.print()
	above("  of which the shim", 0, shims, floors).print()
	above("  of which CLI and daemon", 20*time.Millisecond, figures, shims).print()
	return nil
}

const (
	others = 7 // execs at once beside the reader that stands still
	rounds = 3 // of them at a time
	turns  = 8 // without the reader and with it
)

// standing measures what a reader that stands still costs seven others on
// the same VM: a command that never ends to write, whose banger is stopped.
func (b *benchmark) standing() error {
	vm, err := b.up()
	if err != nil {
		return err
	}
	var with, without []time.Duration
	for range turns {
		alone, err := b.atOnce(vm.Dir)
		if err != nil {
			return err
		}
		end, err := b.standStill()
		if err != nil {
			return err
		}
		beside, err := b.atOnce(vm.Dir)
		if err := errors.Join(err, end()); err != nil {
			return err
		}
		with, without = append(with, beside...), append(without, alone...)
	}
	medians("seven execs at once beside a standing reader", 0, with, without).print()
	above("  of which the reader", 50*time.Millisecond, with, without).print()
	return nil
}

// atOnce runs the execs of all rounds, after one round that does not count:
// what stands still needs a moment to get there.
func (b *benchmark) atOnce(dir string) (all []time.Duration, err error) {
	for round := range rounds + 1 {
		var group sync.WaitGroup
		times, errs := make([]time.Duration, others), make([]error, others)
		for i := range others {
			group.Go(func() {
				one, err := timed(1, execThroughShim(dir))
				if errs[i] = err; err == nil {
					times[i] = one[0]
				}
			})
		}
		group.Wait()
		if err := errors.Join(errs...); err != nil {
			return nil, err
		}
		if round > 0 {
			all = append(all, times...)
		}
	}
	return all, nil
}

// standStill starts a flood that nobody reads: neither its pipe, nor, since
// its banger is stopped, the shim's socket.
func (b *benchmark) standStill() (end func() error, err error) {
	cmd := b.w.Command("exec", "bench", "--", "cat", "/dev/zero")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	end = func() error {
		err := cmd.Process.Kill()
		_ = cmd.Wait() // killed: no success
		return err
	}
	_, err = io.ReadFull(out, make([]byte, 1))
	if err == nil {
		err = cmd.Process.Signal(syscall.SIGSTOP)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot flood a reader: %w", err), end())
	}
	return end, nil
}
