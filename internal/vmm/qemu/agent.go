package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// agentStream is the byte stream to the guest agent, with a gate. What is
// written passes through QEMU into the guest's memory also while the vCPUs
// stand still: in the middle of a Save, memory and devices would disagree on
// what has arrived.
//
// A write waits at the closed gate, be its deadline what it may.
type agentStream struct {
	net.Conn // no more of it than this: others of its methods would pass by the gate

	mu       sync.Mutex
	changed  sync.Cond // of what follows
	shut     bool
	writers  int // beyond the gate
	deadline time.Time
}

func newAgentStream(conn net.Conn) *agentStream {
	s := &agentStream{Conn: conn}
	s.changed.L = &s.mu
	return s
}

// Write implements net.Conn. One that is stuck, since the guest does not read,
// is called back when the gate closes, and goes on when it opens.
func (s *agentStream) Write(p []byte) (written int, err error) {
	for {
		s.enter()
		n, err := s.Conn.Write(p[written:])
		again := s.leave() && errors.Is(err, os.ErrDeadlineExceeded)
		written += n
		if !again {
			return written, err
		}
	}
}

func (s *agentStream) enter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.shut {
		s.changed.Wait()
	}
	s.writers++
}

// leave says whether the gate closed meanwhile.
func (s *agentStream) leave() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writers--
	s.changed.Broadcast()
	return s.shut
}

// shutGate closes the gate and returns when nobody writes any more.
func (s *agentStream) shutGate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shut = true
	s.Conn.SetWriteDeadline(time.Unix(1, 0))
	for s.writers > 0 {
		s.changed.Wait()
	}
}

func (s *agentStream) openGate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shut = false
	s.Conn.SetWriteDeadline(s.deadline)
	s.changed.Broadcast()
}

// SetWriteDeadline implements net.Conn.
func (s *agentStream) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	if s.shut {
		return nil
	}
	return s.Conn.SetWriteDeadline(t)
}

// SetDeadline implements net.Conn.
func (s *agentStream) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// unread is a measure of what QEMU has not taken yet.
func (s *agentStream) unread() (n int, err error) {
	raw, err := s.Conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return 0, err
	}
	controlErr := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	return n, errors.Join(controlErr, err)
}

// settleLimit bounds the commands that settle waits with; QEMU takes 4 KiB
// between two, and no socket holds so much.
const settleLimit = 1000

// settle waits until QEMU has put into the memory of a paused guest what there
// is room for: it has served its sockets once when it answers a command.
func (m *machine) settle(ctx context.Context) error {
	before := -1
	for range settleLimit {
		now, err := m.agent.unread()
		if err != nil || now == before {
			return err
		}
		before = now
		if err := m.command(ctx, "query-status", nil); err != nil {
			return err
		}
	}
	return fmt.Errorf("QEMU does not stop reading what the agent is sent")
}
