package shim

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/paths"
)

// Starter starts shims and reaps those that end while it lives. Shims outlive
// it. A zero Starter with Exe and Args set is ready.
type Starter struct {
	Exe  string   // the banger binary
	Args []string // what makes it a shim; the VM's directory is added
	Env  []string // beside a minimal environment

	Started func(dir paths.VM) // hears of each VM that runs now; returns promptly; may be nil

	mu       sync.Mutex
	children map[*os.File]bool // pidfds
	reapers  sync.WaitGroup
	closed   bool
}

// reportFD is where a shim finds the pipe on which it says how its start went;
// reportEnv tells it that there is one.
const (
	reportFD  = 3
	reportEnv = "BANGER_SHIM_REPORT"
)

// memoryFD is where a shim finds the memory of the machine it is to restore;
// memoryEnv tells it that there is one.
const (
	memoryFD  = 4
	memoryEnv = "BANGER_SHIM_MEMORY"
)

// resumeBound is for reading a memory, which takes no longer than writing it.
const resumeBound = saveBound

// started is the line on that pipe; an empty Code is success.
type started struct {
	Code    banger.Code `json:"code,omitempty"`
	Message string      `json:"message,omitempty"`
	Hints   []string    `json:"hints,omitempty"`
}

// Start writes launch.json, starts a shim and returns a connection to it once
// its VMM runs and its socket answers; the guest is still booting then. A
// start that fails, or whose ctx ends, leaves no process. The start of a
// suspended VM does not hang on ctx: cut off, it would lose the VM's memory.
func (s *Starter) Start(ctx context.Context, dir paths.VM, launch Launch) (*Client, error) {
	if launch.Restore != nil && launch.Restore.Suspended {
		fresh, cancel := context.WithTimeout(context.WithoutCancel(ctx), resumeBound)
		defer cancel()
		ctx = fresh
	}
	if _, alive, err := Alive(dir); err != nil || alive {
		if err == nil {
			err = banger.Errorf(banger.Conflict, "it already has a shim")
		}
		return nil, banger.Wrap(err, "cannot start %s", launch.Name)
	}
	if err := launch.write(dir); err != nil {
		return nil, fileError(err, "cannot start %s", launch.Name)
	}
	var memory *os.File
	if launch.Restore != nil {
		memory = launch.Restore.Memory
	}
	process, err := s.run(ctx, dir, memory)
	if err != nil {
		return nil, banger.Wrap(err, "cannot start %s", launch.Name)
	}
	client, err := Dial(ctx, dir)
	if err != nil {
		_ = sendSignal(process, syscall.SIGKILL)
		_ = ended(process) // or was reaped and closed by its reaper
		return nil, banger.Wrap(err, "cannot start %s", launch.Name)
	}
	if s.Started != nil {
		s.Started(dir)
	}
	return client, nil
}

// run starts the process and waits for its report.
func (s *Starter) run(ctx context.Context, dir paths.VM, memory *os.File) (*os.File, error) {
	report, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer report.Close()
	process, err := s.spawn(dir, theirs, memory)
	_ = theirs.Close()
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = report.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var answer started
	line, err := bufio.NewReader(report).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &answer)
	}
	switch {
	case err == nil && answer.Code == "":
		s.adopt(process)
		return process, nil
	case ctx.Err() != nil:
		err = banger.Errorf(banger.Cancelled, "%w", context.Cause(ctx))
	case err != nil:
		err = banger.Errorf(banger.Internal, "its shim ended before it said why").Hint("look at %s", dir.ShimLog())
	default:
		e := banger.Errorf(answer.Code, "%s", answer.Message)
		e.Hints = answer.Hints
		err = e
	}
	_ = sendSignal(process, syscall.SIGKILL)
	_ = ended(process)
	return nil, errors.Join(err, reap(process), process.Close())
}

// spawn starts a process that shares nothing with this one but the pipe, and a
// memory that nobody can change: its own session, so that no terminal and no
// end of ours reaches it.
func (s *Starter) spawn(dir paths.VM, report, memory *os.File) (*os.File, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	log, err := os.OpenFile(dir.ShimLog(), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fileError(err, "cannot open its log")
	}
	defer log.Close()
	// Go opens everything close-on-exec; what this process was born with
	// may not be.
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil && !errors.Is(err, unix.ENOSYS) {
		return nil, fmt.Errorf("close_range: %w", err)
	}
	env := append([]string{"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", reportEnv + "=1"}, s.Env...)
	files := []*os.File{null, log, log, report}
	if memory != nil {
		env, files = append(env, memoryEnv+"=1"), append(files, memory)
	}
	var pidfd int
	p, err := os.StartProcess(s.Exe, slices.Concat([]string{"banger"}, s.Args, []string{string(dir)}), &os.ProcAttr{
		Dir:   string(dir),
		Env:   env,
		Files: files,
		Sys:   &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd},
	})
	if err != nil {
		return nil, banger.Errorf(banger.Unavailable, "cannot run %s: %w", s.Exe, err)
	}
	_ = p.Release()
	if err := unix.SetNonblock(pidfd, true); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(pidfd), "pidfd"), nil
}

// adopt reaps the process when it ends, so that it never stays a zombie.
func (s *Starter) adopt(process *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = process.Close()
		return
	}
	if s.children == nil {
		s.children = make(map[*os.File]bool)
	}
	s.children[process] = true
	s.reapers.Go(func() {
		if ended(process) == nil {
			_ = reap(process)
		}
		s.mu.Lock()
		delete(s.children, process)
		s.mu.Unlock()
		_ = process.Close()
	})
}

// Close stops reaping. Shims that run go on.
func (s *Starter) Close() {
	s.mu.Lock()
	s.closed = true
	for process := range s.children {
		_ = process.Close()
	}
	s.mu.Unlock()
	s.reapers.Wait()
}

// fileError gives a failed file operation its code.
func fileError(err error, format string, args ...any) error {
	e := banger.Errorf(banger.Internal, "%s: %w", fmt.Sprintf(format, args...), err)
	switch {
	case diskFull(err):
		e.Code = banger.NoSpace
		e.Hint("free some disk space, for example with banger vm prune or banger image cache prune")
	case errors.Is(err, os.ErrNotExist):
		e.Code = banger.NotFound
	}
	return e
}

func diskFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
