package qemu

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// agentConn is our end of the agent's stream. A Save can hold up whoever reads it.
//
// QEMU takes what a guest has written also while the guest stands still, as soon as
// there is room in the socket, and notes in the guest's memory that it did: a reader
// that comes late would change the memory of a machine while it is saved. In the
// other direction QEMU waits by itself.
type agentConn struct {
	*net.UnixConn
	gate sync.Mutex // held while something is taken from the socket, or by a Save
}

// Read implements net.Conn.
func (c *agentConn) Read(into []byte) (n int, err error) {
	if len(into) == 0 {
		return 0, nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	waited := raw.Read(func(fd uintptr) bool {
		n, err = c.take(int(fd), into)
		return !errors.Is(err, unix.EAGAIN)
	})
	switch {
	case waited != nil:
		return 0, waited
	case err != nil:
		return 0, &net.OpError{Op: "read", Net: "unix", Err: os.NewSyscallError("read", err)}
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (c *agentConn) take(fd int, into []byte) (n int, err error) {
	c.gate.Lock()
	defer c.gate.Unlock()
	for {
		if n, err = unix.Read(fd, into); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
