package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ownCPU measures what a warm run takes of the CPU beside the VMM: the CLI, the daemon's part, and
// the shim. What becomes Firecracker is counted as that from its beginning. Beside it is what
// the shortest command takes, by which a slow or an emulated processor is known.
func (b *benchmark) ownCPU() error {
	pool := b.templates()
	defer pool.Close()
	fork, err := b.awaitTemplate(b.floor, pool)
	if err != nil {
		return err
	}
	_ = fork.Close()
	if err := b.command("run", "--rm", "--", "true")(); err != nil { // has the daemon read the template
		return err
	}
	var of [3][]time.Duration
	var all, versions []time.Duration
	for range b.often(quick) {
		if err := b.alone(); err != nil {
			return err
		}
		parts, err := b.runParts()
		if err != nil {
			return err
		}
		for i, part := range parts {
			of[i] = append(of[i], part)
		}
		all = append(all, parts[0]+parts[1]+parts[2])
		version := b.w.Command("version")
		if err := version.Run(); err != nil {
			return err
		}
		versions = append(versions, cpuOf(version))
	}
	medians("CPU time of a warm run, no VMM (floor: version)", 60*time.Millisecond, all, versions).print()
	for i, name := range []string{"CLI", "daemon", "shim"} {
		medians("  of which the "+name, 0, of[i], nil).print()
	}
	return nil
}

// runParts is the CPU time that one warm run takes of CLI, daemon and shim.
func (b *benchmark) runParts() (parts [3]time.Duration, err error) {
	var daemon struct {
		PID int `json:"pid"`
	}
	if err := b.answer(&daemon, "daemon", "status", "--json"); err != nil {
		return parts, err
	}
	before := usedSoFar(daemon.PID)
	ended := make(chan struct{})
	shim := make(chan time.Duration, 1)
	go func() { shim <- b.followShim(daemon.PID, ended) }()
	cmd := b.w.Command("run", "--rm", "--", "true")
	said, err := cmd.CombinedOutput()
	close(ended)
	parts[2] = <-shim
	if err != nil {
		return parts, fmt.Errorf("banger run: %w: %s", err, said)
	}
	if parts[2] == 0 {
		return parts, fmt.Errorf("no shim was seen below the daemon, which is process %d", daemon.PID)
	}
	parts[0] = cpuOf(cmd)
	parts[1] = usedSoFar(daemon.PID) - before
	return parts, nil
}

// cpuOf is the CPU time of a command that has ended.
func cpuOf(cmd *exec.Cmd) time.Duration {
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// look is how often a shim is looked at: what it does after the last time is missed.
const look = 2 * time.Millisecond

// followShim gives the CPU time of the shim that the daemon starts, from when it is there until
// it is gone. One that has not come when the run has ended does not come.
func (b *benchmark) followShim(daemon int, ended <-chan struct{}) (used time.Duration) {
	pid := 0
	for ; ; time.Sleep(look) {
		select {
		case <-ended:
			if pid == 0 {
				return 0
			}
		default:
		}
		if pid == 0 {
			pid = b.shimOf(daemon)
			continue
		}
		now := usedSoFar(pid)
		if now == 0 {
			return used
		}
		used = now
	}
}

// shimOf is a child of the daemon that works in the directory of a VM, 0 where there is none.
func (b *benchmark) shimOf(daemon int) int {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", daemon))
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for child := range strings.FieldsSeq(string(text)) {
			dir, _ := os.Readlink(filepath.Join("/proc", child, "cwd"))
			if pid, err := strconv.Atoi(child); err == nil && strings.HasPrefix(dir, filepath.Join(b.w.State(), "vms")) {
				return pid
			}
		}
	}
	return 0
}

// usedSoFar is the CPU time of all threads of a process, those that ended too, to the nanosecond;
// 0 where there is no such process.
func usedSoFar(pid int) time.Duration {
	var used unix.Timespec
	// The kernel's name of another process's clock, as clock_getcpuclockid gives it.
	const scheduled = 2
	if unix.ClockGettime(int32(^pid<<3|scheduled), &used) != nil {
		return 0
	}
	return time.Duration(used.Nano())
}
