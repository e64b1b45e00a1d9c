// Package boot makes a Linux system of a machine whose kernel has just run
// /init from banger's initramfs: it loads the early modules, assembles the
// root from the image and the VM's disk, and sets up what programs expect to
// find. The process goes on as the agent afterwards; nothing is executed.
//
// Where the image's systemd is to be the first process, two share the work: the
// first one enters the root and has another Join it, which does the rest.
//
// It also is the kernel's modprobe. It knows nothing of the agent, its wire
// or the host.
package boot

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// System is a machine that came up.
type System struct {
	// Problems is what could not be done, one line each.
	Problems []string

	// Disk is the root directory of the writable disk's file system, which
	// is mounted where no path in the guest leads. It is nil if there is none.
	Disk *os.File

	// Children is the cgroup that commands belong to, or nil.
	Children *os.File

	cgroup  string     // the directory that Children and the agent's own are in
	device  *device    // the writable disk's
	remount sync.Mutex // of the disk
	ending  bool       // Down was called
	cmdline map[string]string
	events  *events
}

// deviceDeadline is how long a device may take to appear once its driver is
// loaded: probes may be asynchronous.
const deviceDeadline = 5 * time.Second

// AgentPath is where the agent's own executable is found in the guest: where
// systemd unmounts nothing, as it is the place of what came with an initramfs.
const AgentPath = "/run/initramfs/banger/agent"

// Enter loads the first modules and enters the root. Without a root there is no
// system: that is the error, or ErrTimer; everything else that fails is a problem
// of the System.
func Enter() (*System, error) {
	s := &System{cgroup: cgroups}
	if err := mountKernelFileSystems(); err != nil {
		return s, err
	}
	s.cmdline = readCmdline()
	if err := checkTimer(s.cmdline); err != nil {
		return s, err
	}
	var err error
	if s.events, err = listenEvents(); err != nil {
		s.problem("listen for devices", err)
	}
	s.problem("load the early modules", loadEarlyModules("/modules"))
	if err := s.enterRoot(); err != nil {
		return s, fmt.Errorf("cannot mount the root: %w", err)
	}
	return s, nil
}

// Join takes over from the process that entered the root and will be systemd:
// disk is its Disk, problems are its Problems. The cgroups are systemd's, but for a
// directory that it leaves alone, as it does with all that it did not make.
func Join(disk *os.File, problems []string) *System {
	s := &System{Disk: disk, Problems: problems, cgroup: cgroups + "/banger", cmdline: readCmdline()}
	var err error
	s.events, err = listenEvents()
	s.problem("listen for devices", err)
	return s
}

// Furnish does everything after the root.
func (s *System) Furnish() {
	for _, step := range s.steps() {
		s.problem(step.name, step.do())
	}
}

type step struct {
	name string
	do   func() error
}

// steps is everything after the root, in order.
func (s *System) steps() []step {
	return []step{
		{"share mounts", shareMounts},
		{"mount /run", mountRun},
		{"offer the agent as modprobe", offerModprobe},
		{"make the device nodes", makeNodes},
		{"mount in /dev", mountInDev},
		{"mount the cgroups", s.mountCgroups},
		{"mount the kernel modules", s.mountModules},
		{"give container engines plain directories", s.bindEngineDirs},
		{"enlarge the disk", func() error { return s.GrowDisk(0) }},
		{"bring lo up", bringLoUp},
		{"set kernel parameters", setSysctls},
		{"set limits", setLimits},
	}
}

func (s *System) problem(what string, err error) {
	if err != nil {
		s.Problems = append(s.Problems, fmt.Sprintf("cannot %s: %v", what, err))
	}
}

// Emulated says that the host's processors only pretend to be this machine's, as
// its driver tells.
func (s *System) Emulated() bool { return s.cmdline["banger.emulated"] != "" }

// Systemd says that the image's systemd is to be the first process.
func (s *System) Systemd() bool { return s.cmdline["banger.init"] == "systemd" }

// readCmdline is the kernel's command line, the KEY=VALUE part of it.
func readCmdline() map[string]string {
	text, _ := os.ReadFile("/proc/cmdline")
	m := map[string]string{}
	for _, word := range strings.Fields(string(text)) {
		if key, value, ok := strings.Cut(word, "="); ok {
			m[key] = value
		}
	}
	return m
}
