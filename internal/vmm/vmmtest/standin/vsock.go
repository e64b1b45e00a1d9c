package standin

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// vsock is the device by which the host connects to ports of the guest.
type vsock struct {
	Path string `json:"path"`

	listener net.Listener

	mu    sync.Mutex
	guest *guest
	dead  bool // nothing comes in any more
	conns map[*guestConn]bool
}

func (v *vsock) listen() (err error) {
	v.listener, err = net.Listen("unix", v.Path)
	return err
}

// serve takes connections for a guest.
func (v *vsock) serve(g *guest) {
	v.mu.Lock()
	v.guest, v.conns = g, map[*guestConn]bool{}
	v.mu.Unlock()
	go func() {
		for {
			conn, err := v.listener.Accept()
			if err != nil {
				return
			}
			go v.connect(conn)
		}
	}()
}

// connect joins a connection to the port it asks for, once the guest runs.
func (v *vsock) connect(conn net.Conn) {
	in := bufio.NewReader(conn)
	line, err := in.ReadString('\n')
	var port uint32
	if _, bad := fmt.Sscanf(line, "CONNECT %d\n", &port); err != nil || bad != nil {
		_ = conn.Close()
		return
	}
	g := v.guest
	g.gate.RLock()
	c := &guestConn{Conn: conn, in: in}
	v.mu.Lock()
	dead := v.dead
	v.conns[c] = true
	v.mu.Unlock()
	g.gate.RUnlock()
	switch {
	case dead:
		return // and there is no answer, ever
	case port != g.cpu.Port:
		_ = conn.Close()
		return
	}
	if _, err := fmt.Fprintf(conn, "OK %d\n", 1<<30); err == nil {
		_ = g.port.Serve(c)
	}
	v.mu.Lock()
	delete(v.conns, c)
	v.mu.Unlock()
	if !c.wasReset() {
		_ = conn.Close()
	}
}

// reset ends what the guest has of its connections, of which the host hears nothing. Where the
// guest does not hear of it either, the device waits for that for good.
func (v *vsock) reset(announced bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dead = v.dead || !announced
	for c := range v.conns {
		c.cut()
	}
}

// guestConn is the guest's end of a connection.
type guestConn struct {
	net.Conn
	in io.Reader

	mu  sync.Mutex
	off bool
}

func (c *guestConn) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	if c.wasReset() {
		return 0, io.EOF
	}
	return n, err
}

func (c *guestConn) Write(p []byte) (int, error) {
	if c.wasReset() {
		return 0, io.ErrClosedPipe
	}
	return c.Conn.Write(p)
}

// Close is the guest's, and the host's end of one that was reset stays as it is.
func (c *guestConn) Close() error {
	if c.wasReset() {
		return nil
	}
	return c.Conn.Close()
}

func (c *guestConn) wasReset() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.off
}

func (c *guestConn) cut() {
	c.mu.Lock()
	c.off = true
	c.mu.Unlock()
	_ = c.SetDeadline(time.Unix(1, 0))
}
