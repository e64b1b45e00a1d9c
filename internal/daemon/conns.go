package daemon

import (
	"net"
	"net/http"
	"sync"
)

// conns counts the connections that are in the middle of a request. The
// server's own Shutdown looks again and again, and waits five seconds for
// one on which nothing was ever asked.
type conns struct {
	mu     sync.Mutex
	active map[net.Conn]bool
	free   chan struct{} // closed when none is active, once somebody waits
}

// changed is the server's ConnState.
func (c *conns) changed(conn net.Conn, s http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s == http.StateActive {
		if c.active == nil {
			c.active = map[net.Conn]bool{}
		}
		c.active[conn] = true
		return
	}
	delete(c.active, conn)
	if len(c.active) == 0 && c.free != nil {
		close(c.free)
		c.free = nil
	}
}

// quiet gives a channel that closes when no request is being answered.
func (c *conns) quiet() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	free := make(chan struct{})
	if len(c.active) == 0 {
		close(free)
	} else {
		c.free = free
	}
	return free
}
