package guest

import (
	"encoding/binary"
	"errors"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reaper is the only one to wait for children: those the agent started and,
// as PID 1, all that lost their parent.
type reaper struct {
	mu      sync.Mutex
	started uint64        // children started so far
	more    sync.Cond     // started has grown
	idle    chan struct{} // closed while there are no children
	own     map[int]*child
}

// child is a process the agent started. It leads its own session and process
// group.
type child struct {
	pid    int
	done   chan struct{} // closed once it has ended
	status syscall.WaitStatus
}

func newReaper() *reaper {
	r := &reaper{own: map[int]*child{}, idle: make(chan struct{})}
	r.more.L = &r.mu
	return r
}

// start runs fork and watches the process it made.
func (r *reaper) start(fork func() (int, error)) (*child, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := fork()
	if err != nil {
		return nil, err
	}
	c := &child{pid: pid, done: make(chan struct{})}
	r.own[pid] = c
	r.started++
	select {
	case <-r.idle:
		r.idle = make(chan struct{})
	default:
	}
	r.more.Broadcast()
	return c, nil
}

// run waits for children for ever. While there are none it waits for one to
// be started: then nothing can be orphaned either.
func (r *reaper) run() {
	for {
		r.mu.Lock()
		before := r.started
		r.mu.Unlock()
		pid, err := peek()
		switch {
		case err == nil:
			r.reap(pid)
		case errors.Is(err, unix.ECHILD):
			r.rest(before)
		}
	}
}

// peek blocks until a child has ended, and leaves it a zombie.
func peek() (pid int, err error) {
	var info [128]byte // siginfo_t: si_pid is behind three ints and padding
	for {
		_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_ALL, 0,
			uintptr(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOWAIT, 0, 0)
		switch errno {
		case 0:
			return int(binary.NativeEndian.Uint32(info[16:])), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// reap frees the pid under the lock that signals are sent under, so that none
// is sent to a later process.
func (r *reaper) reap(pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var status syscall.WaitStatus
	if got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil); got != pid || err != nil {
		return
	}
	if c := r.own[pid]; c != nil {
		delete(r.own, pid)
		c.status = status
		close(c.done)
	}
}

// rest waits until more than before children were started.
func (r *reaper) rest(before uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.started == before {
		close(r.idle)
	}
	for r.started == before {
		r.more.Wait()
	}
}

// quiet is closed once no child is left.
func (r *reaper) quiet() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.idle
}

// signal signals the process group of c while c is there.
func (r *reaper) signal(c *child, sig syscall.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.own[c.pid] == c {
		_ = syscall.Kill(-c.pid, sig)
	}
}

// leaders lists the children that were started and have not ended.
func (r *reaper) leaders() []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	pids := make([]int, 0, len(r.own))
	for pid := range r.own {
		pids = append(pids, pid)
	}
	return pids
}
