package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"banger/internal/paths"
	"banger/internal/template"
)

// Bench measures banger's commands.
type Bench struct {
	Exe string   // banger
	Run []string // flags of its run, as in --image NAME
	N   int      // how often each thing is done

	VM    string   // name of a VM that runs, made as run makes one
	Dir   paths.VM // of it
	Cache template.Cache

	Begin func(what string) // hears what is measured next
}

// What is measured.
const (
	ColdRun = "cold-run"
	WarmRun = "warm-run"
	Exec    = "exec"
	Fork    = "fork"
)

// Measure measures everything. What could be measured is given also where the
// rest fails.
func (b *Bench) Measure(ctx context.Context) (all []Figure, err error) {
	floor, err := OpenFloor(ctx, b.Dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, floor.Close()) }()
	b.Begin("wait for the template")
	pool := &template.Pool{Cache: b.Cache}
	defer pool.Close()
	wait, cancel := context.WithTimeoutCause(ctx, templateLimit, errors.New("no template was made"))
	defer cancel()
	saved, err := floor.Template(wait, pool)
	if err != nil {
		return nil, err
	}
	take := func(what string, before int, by func() error, args ...string) {
		if err != nil {
			return
		}
		b.Begin("banger " + strings.Join(args, " "))
		f := Figure{What: what, N: b.N}
		if err = f.inTurn(ctx, before, func() error { return b.command(ctx, args...) }, by); err == nil {
			all = append(all, f)
		}
	}
	take(ColdRun, 0, floor.BootAndExec, b.run("--cold")...)
	take(WarmRun, 1, func() error { return floor.RestoreAndExec(saved) }, b.run()...)
	if err = errors.Join(err, saved.Close()); err == nil {
		b.Begin("boot a machine by hand")
		err = floor.Boot()
	}
	take(Exec, 3, floor.Exec, "exec", b.VM, "--", "true")
	take(Fork, 1, floor.ForkAndExec, "fork", "--rm", b.VM, "--", "true")
	return all, err
}

// templateLimit is how long the template of the VM's shape may take to be made.
const templateLimit = 3 * time.Minute

func (b *Bench) run(flags ...string) []string {
	return slices.Concat([]string{"run", "--rm"}, flags, b.Run, []string{"--", "true"})
}

// command runs banger as a person does. Signals reach it from us alone: it
// undoes what it has begun.
func (b *Bench) command(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, b.Exe, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	var messages bytes.Buffer
	cmd.Stderr = &messages
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("banger %s: %w\n%s", strings.Join(args, " "), err, strings.TrimSpace(messages.String()))
	}
	return nil
}
