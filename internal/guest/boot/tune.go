package boot

import (
	"errors"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bringLoUp gives the guest its loopback addresses.
func bringLoUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request := struct {
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}{name: [unix.IFNAMSIZ]byte{'l', 'o'}, flags: unix.IFF_UP | unix.IFF_RUNNING}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return errno
	}
	return nil
}

// sysctls are what distributions set too and developers' tools ask for.
var sysctls = []struct{ name, value string }{
	{"fs.protected_symlinks", "1"},
	{"fs.protected_hardlinks", "1"},
	{"fs.protected_fifos", "1"},
	{"fs.protected_regular", "2"},
	{"fs.inotify.max_user_watches", "524288"},
	{"fs.inotify.max_user_instances", "1024"},
	{"kernel.pid_max", "4194304"},
	{"vm.max_map_count", "1048576"},
	{"net.ipv4.ping_group_range", "0 2147483647"},
	{"vm.compaction_proactiveness", "0"}, // or a kernel thread looks twice a second whether there is something to do
}

// setSysctls leaves out what this kernel does not have.
func setSysctls() error {
	var errs []error
	for _, s := range sysctls {
		err := os.WriteFile("/proc/sys/"+strings.ReplaceAll(s.name, ".", "/"), []byte(s.value), 0)
		errs = append(errs, ignoring(err, os.ErrNotExist))
	}
	return errors.Join(errs...)
}

// MaxFiles is how many files a process may have open at most, as
// distributions set it.
const MaxFiles = 524288

// setLimits sets the agent's own limits; what commands get is set where they
// are started.
func setLimits() error {
	limit := unix.Rlimit{Cur: MaxFiles, Max: MaxFiles}
	return errors.Join(
		unix.Setrlimit(unix.RLIMIT_NOFILE, &limit),
		os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0))
}
