package template

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"banger/internal/vmm"
)

// Main is the whole life of a maker's process. It works while nobody else
// wants the machine, and gives up when its standard input ends: whoever holds
// the other end is gone then, or wants it to.
func Main(ctx context.Context, spec string, driver func(name string) (vmm.Driver, error)) error {
	syscall.Umask(0o077)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	yield()
	if info, err := os.Stdin.Stat(); err == nil && info.Mode()&os.ModeNamedPipe != 0 {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			stop()
		}()
	}
	m := Maker{Driver: driver, Log: slog.New(slog.NewJSONHandler(os.Stderr, nil))}
	err := m.Make(ctx, spec)
	if err != nil {
		m.Log.Error("cannot make a template", "spec", spec, "error", err)
	}
	return err
}

const (
	niceness  = 10
	idleClass = 3 << 13 // IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0)
	ofGroup   = 2       // IOPRIO_WHO_PGRP
)

// yield lets everybody else go first. It does so for the process group, since
// each thread has a priority of its own; the VMM inherits it.
func yield() {
	_ = unix.Setpriority(unix.PRIO_PGRP, 0, niceness)
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, ofGroup, 0, idleClass)
}
