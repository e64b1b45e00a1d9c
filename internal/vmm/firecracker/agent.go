package firecracker

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// streamPair is a stream for the caller and our end of it.
func streamPair() (caller, ours net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	one, two := os.NewFile(uintptr(fds[0]), "agent"), os.NewFile(uintptr(fds[1]), "agent")
	defer one.Close() // FileConn has its own
	defer two.Close()
	if caller, err = net.FileConn(one); err != nil {
		return nil, nil, err
	}
	if ours, err = net.FileConn(two); err != nil {
		_ = caller.Close()
	}
	return caller, ours, err
}

// agentConn is a connection to the agent's port: Firecracker is asked for it by the first
// write, which ends when the guest has accepted. So nothing gets into a guest by a connection
// that nobody writes to.
type agentConn struct {
	net.Conn
	joined bool
}

func (c *agentConn) Write(p []byte) (int, error) {
	if !c.joined {
		if err := c.join(); err != nil {
			return 0, err
		}
		c.joined = true
	}
	return c.Conn.Write(p)
}

// maxJoined is more than the answer ever has: "OK", and a port of the host's.
const maxJoined = 32

func (c *agentConn) join() error {
	if _, err := fmt.Fprintf(c.Conn, "CONNECT %d\n", agentPort); err != nil {
		return err
	}
	var said []byte
	for next := make([]byte, 1); len(said) < maxJoined; said = append(said, next...) {
		if _, err := io.ReadFull(c.Conn, next); err != nil {
			return fmt.Errorf("nobody listens at the agent's port: %w", err)
		}
		if next[0] == '\n' && bytes.HasPrefix(said, []byte("OK ")) {
			return nil
		}
		if next[0] == '\n' {
			break
		}
	}
	return fmt.Errorf("cannot reach the agent: Firecracker says %q", said)
}

// keepLink has the link go over connections to the agent, from when the machine is up until
// the process has ended and all it sent was received.
func (m *machine) keepLink() {
	select {
	case <-m.up:
	case <-m.process.Done():
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		defer cancel()
		<-m.process.Done()
	}()
	m.link.Keep(ctx, m.home.dialAgent)
}

// joinAgent copies between the caller's stream and the link. The result waits until all
// that came over a link that was closed is in the caller's hands, or refused by it.
func (m *machine) joinAgent(ours net.Conn) (wait func()) {
	var out, in sync.WaitGroup
	out.Go(func() {
		_, _ = io.Copy(m.link, ours)
		// A caller that closed its end wants no more, and the guest learns of it.
		_ = m.link.Close()
	})
	in.Go(func() {
		_, _ = io.Copy(ours, m.link)
		_ = ours.Close()
	})
	return func() {
		_ = ours.SetWriteDeadline(drainDeadline())
		in.Wait()
		out.Wait()
	}
}
