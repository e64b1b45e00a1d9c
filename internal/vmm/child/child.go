// Package child starts processes that cannot outlive this one, for a VMM that its
// shim leaves behind would keep its disk locked for ever, and that can do no more
// than they must.
//
// It knows nothing of VMMs.
package child

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"banger"
)

// Spec says what to start. Files become the child's descriptors 0, 1, 2, …;
// it gets no other. Its umask is this process's.
type Spec struct {
	Path  string
	Args  []string // without the program's name
	Dir   string
	Env   []string // all of it: an empty one starts the child without any
	Files []*os.File

	// Namespaces are the clone flags of the namespaces to put the child
	// in, of which CLONE_NEWUSER must be one if any is given. The user's
	// own uid and gid are mapped to themselves, so that the child owns what
	// the user owns and nothing else; with Root they are mapped to root's,
	// so that the child has all capabilities in its namespaces. With Access
	// nothing is mapped: it is nobody there, without a capability even where
	// the user is root.
	Namespaces uintptr
	Root       bool

	// Access is what of the host the child may open, where the kernel has
	// Landlock; nil does not restrict it.
	Access *Access

	// Ambient are capabilities that the child has in its user namespace, and
	// what it executes has too. With Access it has none.
	Ambient []uintptr
}

// Child is a running process. All methods may be called concurrently.
type Child struct {
	process *os.Process
	locked  bool // Landlock was seen to hold
	done    chan struct{}
	state   *os.ProcessState // valid after done
}

// Start starts a process that the kernel kills when this one dies, however
// that happens.
func Start(spec Spec) (*Child, error) {
	// What this process was born with may lack close-on-exec; a VMM must
	// not inherit somebody's terminal or lock.
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil && !errors.Is(err, unix.ENOSYS) {
		return nil, fmt.Errorf("close_range: %w", err)
	}
	started := make(chan error)
	c := &Child{done: make(chan struct{})}
	go c.live(spec, started)
	if err := <-started; err != nil {
		return nil, err
	}
	prefer(c.PID()) // not on the thread that is confined
	return c, nil
}

// live starts the child and waits for its end on one thread: the kernel sends
// the parent-death signal when the *thread* that made the child ends, and Go
// ends idle threads as it likes. The thread is confined, for the child to be so
// from its first instruction, and ends with this function: it is never unlocked.
func (c *Child) live(spec Spec, started chan<- error) {
	runtime.LockOSThread()
	process, err := c.start(spec)
	if err != nil {
		started <- err
		return
	}
	c.process = process
	close(started)
	// Wait fails only for a process that is not our child.
	if c.state, err = process.Wait(); err != nil {
		panic(fmt.Sprintf("child: wait: %v", err))
	}
	close(c.done)
}

func (c *Child) start(spec Spec) (_ *os.Process, err error) {
	if spec.Access != nil {
		c.locked, err = spec.Access.Confine()
	} else {
		err = giveUpPrivileges()
	}
	if err != nil {
		return nil, err
	}
	return os.StartProcess(spec.Path, slices.Concat([]string{spec.Path}, spec.Args), &os.ProcAttr{
		Dir:   spec.Dir,
		Env:   slices.Concat([]string{}, spec.Env), // never nil, which would mean our own
		Files: spec.Files,
		Sys:   attributes(spec),
	})
}

func attributes(spec Spec) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{
		Pdeathsig:  syscall.SIGKILL,
		Setpgid:    true, // a terminal's Ctrl-C is for us, not for it
		Cloneflags: spec.Namespaces,

		AmbientCaps: spec.Ambient,
	}
	// Go would write the mappings on the thread that is confined.
	if spec.Namespaces != 0 && spec.Access == nil {
		attr.UidMappings = mapping(os.Getuid(), spec.Root)
		attr.GidMappings = mapping(os.Getgid(), spec.Root)
	}
	return attr
}

func mapping(id int, root bool) []syscall.SysProcIDMap {
	inside := id
	if root {
		inside = 0
	}
	return []syscall.SysProcIDMap{{ContainerID: inside, HostID: id, Size: 1}}
}

// CanIsolate says whether this host lets this user make the namespaces. Start
// would find out too, but Go loses two descriptors whenever a clone that was
// to map uids fails; here there is nothing to map, and nothing to run either.
func CanIsolate(namespaces uintptr) bool {
	_, err := os.StartProcess("/proc/self/nothing", nil, &os.ProcAttr{
		Sys: &syscall.SysProcAttr{Cloneflags: namespaces},
	})
	return errors.Is(err, os.ErrNotExist) // it came as far as exec
}

// PID is the child's process id, and its process group's.
func (c *Child) PID() int { return c.process.Pid }

// Done is closed when the child has ended and was reaped.
func (c *Child) Done() <-chan struct{} { return c.done }

// Wait is how the child ended; it blocks until then.
func (c *Child) Wait() syscall.WaitStatus {
	<-c.done
	return c.state.Sys().(syscall.WaitStatus)
}

// Signal sends a signal to the child and to nothing else: os.Process signals
// through a pidfd and refuses once the child was reaped.
func (c *Child) Signal(sig os.Signal) error {
	err := c.process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) || errors.Is(err, syscall.ESRCH) {
		return banger.Errorf(banger.NotRunning, "cannot send %v: the process has ended", sig)
	}
	return err
}
