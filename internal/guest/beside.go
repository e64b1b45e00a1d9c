package guest

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"banger/internal/guest/boot"

	"golang.org/x/sys/unix"
)

// Where the image's systemd is the first process, the agent is another one,
// which is started before systemd and of which systemd knows nothing. A unit
// would come too late, since systemd reads machine-id and host name when it
// begins, and would end before the host has heard how a shutdown went.

// besideName is what the agent calls itself. systemd spares at a shutdown what
// came from an initramfs and says so by the first letter.
const besideName = "@banger-guest"

const besideArg = "beside"

// Descriptors that the agent inherits.
const (
	besideDisk = 3
	besideGo   = 4 // a byte there lets systemd begin
)

// handOver starts the agent, waits until it has made the machine its VM's, and
// becomes systemd. It returns only if it cannot.
func handOver(sys *boot.System) error {
	path, err := findSystemd()
	if err != nil {
		return err
	}
	var begin [2]int
	if err := unix.Pipe2(begin[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	_, err = syscall.ForkExec("/proc/self/exe", append([]string{besideName, besideArg}, sys.Problems...), &syscall.ProcAttr{
		Dir: "/", Env: os.Environ(), Sys: &syscall.SysProcAttr{Setsid: true},
		Files: []uintptr{0, 1, 2, besideDisk: sys.Disk.Fd(), besideGo: uintptr(begin[1])},
	})
	if err != nil {
		return fmt.Errorf("cannot start the agent: %w", err)
	}
	_ = unix.Close(begin[1])
	for {
		var word [1]byte
		n, err := unix.Read(begin[0], word[:])
		if n == 1 {
			break
		}
		if err != unix.EINTR {
			return errors.New("the agent has ended")
		}
	}
	env := []string{"HOME=/", "TERM=linux", "PATH=" + defaultPath, "NOTIFY_SOCKET=" + notifySocket}
	return fmt.Errorf("cannot run %s: %w", path, syscall.Exec(path, []string{"/sbin/init"}, env))
}

// findSystemd finds systemd where it is whatever else /sbin/init may be.
func findSystemd() (string, error) {
	for _, path := range []string{"/usr/lib/systemd/systemd", "/lib/systemd/systemd"} {
		if executable(path) {
			return path, nil
		}
	}
	return "", errors.New("its image has no systemd")
}

// serveBeside is the agent of such a machine.
func serveBeside(version string, problems []string) int {
	unix.CloseOnExec(besideDisk)
	unix.CloseOnExec(besideGo)
	sys := boot.Join(os.NewFile(besideDisk, "disk"), problems)
	link := furnish(sys)
	m := newSystemd(newSystem(sys), os.NewFile(besideGo, "begin"))
	a := newAgent(m, version)
	go sys.EmptyTrash()
	serveLink(link, a.handle)
	return 1
}
