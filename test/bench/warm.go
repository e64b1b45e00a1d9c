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
const templateLimit = 10 * time.Minute

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
	all, err := inTurn(b.often(quick), b.alone,
		func() error { return b.floor.RestoreAndExec(fork) }, b.alone, run, b.alone, b.command("run", "--rm", "--nat", "--", "true"))
	if err != nil {
		return err
	}
	warm := medians("warm vm run --rm -- true (floor: restore, exec)", 350*time.Millisecond, all[3], all[1])
	warm.times = 1.3
	warm.print()
	open := medians("  with the internet open (floor: without)", 0, all[5], all[3])
	open.times = 1.05
	open.print()
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

// anyVMM knows VMMs, and the shims above them, by where they work: in the directory of a
// VM of this installation, or of a floor.
func (b *benchmark) anyVMM() bool {
	processes, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, path := range processes {
		dir, err := os.Readlink(path)
		if err == nil && (strings.HasPrefix(dir, filepath.Join(b.w.State(), "vms")) || bench.IsFloor(dir)) {
			return true
		}
	}
	return false
}
