package shim

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxBacklog is what a client may leave unread before it is dropped. Streams
// are bounded by their credit, so only a client with dozens of streams that
// all stand still gets there.
const maxBacklog = 32 << 20

var errStalled = errors.New("the client reads nothing")

// outbox is a client's connection whose writes never wait: relays write to it
// while they read for everybody. What the socket does not take at once is
// written by a goroutine that lives only as long as there is a backlog.
type outbox struct {
	*net.UnixConn
	raw syscall.RawConn

	mu      sync.Mutex
	empty   sync.Cond
	queue   []byte
	writing int // bytes the goroutine has in hand
	busy    bool
	err     error
}

func newOutbox(conn *net.UnixConn) (*outbox, error) {
	raw, err := conn.SyscallConn()
	o := &outbox{UnixConn: conn, raw: raw}
	o.empty.L = &o.mu
	return o, err
}

func (o *outbox) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	taken := 0
	if !o.busy {
		taken = o.try(p)
	}
	rest := p[taken:]
	if len(rest) == 0 {
		return len(p), nil
	}
	if o.writing+len(o.queue)+len(rest) > maxBacklog {
		o.err = errStalled
		_ = o.UnixConn.Close() // the reader on this connection ends it
		return taken, o.err
	}
	o.queue = append(o.queue, rest...)
	if !o.busy {
		o.busy = true
		go o.deliver()
	}
	return len(p), nil
}

// try writes what the socket takes now. Errors are left to the next write.
func (o *outbox) try(p []byte) (n int) {
	_ = o.raw.Write(func(fd uintptr) bool {
		n, _ = unix.Write(int(fd), p)
		return true
	})
	return max(n, 0)
}

func (o *outbox) deliver() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.queue) > 0 && o.err == nil {
		batch := o.queue
		o.queue, o.writing = nil, len(batch)
		o.mu.Unlock()
		_, err := o.UnixConn.Write(batch)
		o.mu.Lock()
		o.writing = 0
		if err != nil && o.err == nil {
			o.err = err
		}
	}
	o.busy = false
	o.empty.Broadcast()
}

// finish waits until everything is written, but not beyond the deadline, and
// closes the connection.
func (o *outbox) finish(deadline time.Time) {
	_ = o.SetWriteDeadline(deadline)
	o.mu.Lock()
	for o.busy {
		o.empty.Wait()
	}
	o.mu.Unlock()
	_ = o.Close()
}
