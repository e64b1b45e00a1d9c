package boot

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const cgroups = "/sys/fs/cgroup"

// mountCgroups mounts the unified hierarchy with every controller for its
// children. Processes may then be in leaves only: the agent in one, what it
// runs in another.
func (s *System) mountCgroups() error {
	const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := mount("cgroup2", cgroups, "cgroup2", quiet, "nsdelegate,memory_recursiveprot"); err != nil {
		if err := mount("cgroup2", cgroups, "cgroup2", quiet, ""); err != nil {
			return err
		}
	}
	for _, leaf := range []string{"/agent", "/commands"} {
		if err := os.MkdirAll(s.cgroup+leaf, 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(s.cgroup+"/agent/cgroup.procs", []byte("0"), 0); err != nil {
		return err
	}
	var err error
	if s.Children, err = os.Open(s.cgroup + "/commands"); err != nil || s.Systemd() {
		return err
	}
	return enableControllers()
}

// enableControllers enables one at a time, so that one that cannot be (cpu,
// while a real-time process runs) keeps no other from it.
func enableControllers() error {
	names, err := os.ReadFile(cgroups + "/cgroup.controllers")
	if err != nil {
		return err
	}
	var errs []error
	for name := range strings.FieldsSeq(string(names)) {
		errs = append(errs, os.WriteFile(cgroups+"/cgroup.subtree_control", []byte("+"+name), 0))
	}
	return errors.Join(errs...)
}
