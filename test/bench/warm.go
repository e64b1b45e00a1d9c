package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"banger/internal/bench"
	"banger/internal/template"
)

// templateLimit is how long the template of a first boot may take.
const templateLimit = 3 * time.Minute

// warmRun measures a run while no other machine does. Both take turns, so that
// they see the same host.
func (b *benchmark) warmRun() error {
	pool := b.templates()
	defer pool.Close()
	fork, err := b.awaitTemplate(b.floor, pool)
	if err != nil {
		return err
	}
	defer fork.Close()
	if err := b.command("stop", "bench")(); err != nil {
		return err
	}
	run := b.command("run", "--rm", "--", "true")
	if err := run(); err != nil { // has the daemon read the template
		return err
	}
	all, err := inTurn(quick, b.alone,
		func() error { return b.floor.RestoreAndExec(fork) }, b.alone, run)
	if err != nil {
		return err
	}
	warm := medians("warm vm run --rm -- true (floor: restore, exec)", 350*time.Millisecond, all[3], all[1])
	warm.times = 1.3
	warm.print()
	return nil
}

func (b *benchmark) templates() *template.Pool {
	return &template.Pool{Cache: template.Cache{Dir: filepath.Join(b.w.Home, ".cache", "banger", "templates")}}
}

// awaitTemplate waits for the template that a floor's VM had made, or was made
// from.
func (b *benchmark) awaitTemplate(floor *bench.Floor, pool *template.Pool) (*template.Fork, error) {
	ctx, cancel := context.WithTimeoutCause(b.ctx, templateLimit, errors.New("no template was made"))
	defer cancel()
	return floor.Template(ctx, pool)
}

// alone fails while a VMM of this installation or of the floor runs. One that was
// ended may take a moment to be gone.
func (b *benchmark) alone() error {
	for deadline := time.Now().Add(5 * time.Second); ; {
		switch {
		case !b.anyVMM():
			return nil
		case time.Now().After(deadline):
			return errors.New("a VMM runs, which it must not for this figure")
		}
		if err := b.pause(10 * time.Millisecond); err != nil {
			return err
		}
	}
}

// anyVMM knows VMMs by their kernel, which is this installation's.
func (b *benchmark) anyVMM() bool {
	processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range processes {
		text, _ := os.ReadFile(path)
		if program, args, _ := strings.Cut(string(text), "\x00"); strings.Contains(program, "qemu-system") && strings.Contains(args, b.w.State()) {
			return true
		}
	}
	return false
}
