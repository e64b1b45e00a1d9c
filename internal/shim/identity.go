package shim

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Identity names one process for all time: a pid is recycled, the pair of pid
// and start time is not before the host boots again.
type Identity struct {
	BootID string `json:"boot_id"` // of the host
	PID    int    `json:"pid"`
	Start  uint64 `json:"start"` // clock ticks since that boot
	Build  string `json:"build"` // of the binary it runs
}

// hostBoot is the id of the host's present boot.
var hostBoot = sync.OnceValues(func() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text)), err
})

// ownIdentity is this process's.
func ownIdentity(build string) (Identity, error) {
	boot, err := hostBoot()
	if err != nil {
		return Identity{}, err
	}
	start, err := startTime(os.Getpid())
	return Identity{BootID: boot, PID: os.Getpid(), Start: start, Build: build}, err
}

// startTime reads field 22 of /proc/PID/stat.
func startTime(pid int) (uint64, error) {
	fields, err := statFields(pid)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

// statFields gives the fields of /proc/PID/stat from the third on. The second is
// the command's name and may hold anything, parentheses too.
func statFields(pid int) ([][]byte, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return nil, fmt.Errorf("cannot read /proc/%d/stat", pid)
	}
	return fields, nil
}

// open gives a pidfd of the process, or nil if it is gone.
func (id Identity) open() (*os.File, error) {
	boot, err := hostBoot()
	if err != nil || boot != id.BootID || id.PID <= 0 {
		return nil, err
	}
	fd, err := unix.PidfdOpen(id.PID, unix.PIDFD_NONBLOCK)
	if err != nil && !id.present() {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("pidfd_open: %w", err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	// The descriptor holds the process; now its start time says whether it
	// is the one that was meant.
	if !id.present() {
		_ = f.Close()
		return nil, nil
	}
	return f, nil
}

// present says whether the process with that pid is the one that was meant.
// pidfd_open alone does not tell who is gone: as long as somebody of its session
// lives, as a VMM does that is being taken down, Linux before 6.15 answers EINVAL.
func (id Identity) present() bool {
	start, err := startTime(id.PID)
	return err == nil && start == id.Start
}
