package workspace

import (
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"banger"
)

// bounds is what git may use up on what a guest sent: a few hundred bytes can name
// more files than a host has memory for, or more empty directories than anybody
// lives to look through. 0 is no bound.
type bounds struct {
	memory uint64 // bytes that it writes to; maps of files do not count
	cpu    uint64 // seconds
}

var (
	// receiving is for taking in a pack. Files beyond 512 MiB do not go through memory.
	receiving = bounds{memory: 2 << 30}

	// comparing is for two trees. A million changes took 356 MB, and what git prints of
	// them is no larger than what it holds.
	comparing = bounds{memory: 512 << 20, cpu: 300}

	// printing is for a patch. One that "git apply" takes, which is no more than 1023
	// MiB, can need so much: a binary file of 340 MB that was changed takes six times
	// its size.
	printing = bounds{memory: 3 << 30, cpu: 3600}
)

// within is g that may use up no more than that.
func (g git) within(b bounds) git {
	g.bounds = b
	return g
}

// run runs git to its end. It begins without bounds, which it cannot use in that
// time.
func (b bounds) run(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	err := b.set(cmd.Process.Pid)
	if err != nil {
		_ = cmd.Process.Kill()
	}
	if ended := cmd.Wait(); err == nil {
		err = ended
	}
	return err
}

func (b bounds) set(pid int) error {
	for which, most := range map[int]uint64{unix.RLIMIT_DATA: b.memory, unix.RLIMIT_CPU: b.cpu} {
		if most == 0 {
			continue
		}
		limit := unix.Rlimit{Cur: most, Max: most}
		if which == unix.RLIMIT_CPU {
			limit.Max++ // before that the signal says why
		}
		err := unix.Prlimit(pid, which, &limit, nil)
		if err != nil && err != unix.ESRCH { // it has ended
			return err
		}
	}
	return nil
}

// overdrawn says that git needed more than it may use.
type overdrawn struct{ error }

func (o overdrawn) Unwrap() error { return o.error }

// explain makes a failure of git one that says so where these bounds are its cause.
// ended is nil for one that never began: its directory may be gone.
func (b bounds) explain(e *gitError, ended *os.ProcessState) error {
	if ended == nil {
		return e
	}
	said := strings.ToLower(e.complaint)
	wait, _ := ended.Sys().(syscall.WaitStatus)
	switch {
	case b.cpu > 0 && wait.Signaled() && wait.Signal() == syscall.SIGXCPU:
		return overdrawn{banger.Errorf(banger.Conflict, "git %s needs more than the %d seconds that it gets for what a guest sent", e.args[0], b.cpu)}
	case b.memory > 0 && (strings.Contains(said, "out of memory") || strings.Contains(said, "cannot allocate memory")):
		return overdrawn{banger.Errorf(banger.Conflict, "git %s needs more than the %d MiB of memory that it gets for what a guest sent", e.args[0], b.memory>>20)}
	}
	return e
}
