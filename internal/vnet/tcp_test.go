package vnet

import (
	"io"
	"net"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"banger/internal/vnet/reach"
)

const unreadConns = 8

// unread opens as many connections as the guest may have. The world sends more than
// the guest's window and ends each, and so does the guest, which reads none of it.
func unread(t *testing.T, linger time.Duration) *lab {
	l := newLab(t, mustPolicy(t, true), func(c *Config) { c.Limits.TCP, c.Limits.Linger = unreadConns, linger })
	window := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: 8 << 10, Max: 8 << 10}
	l.must(l.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &window))
	ended := make(chan struct{}, unreadConns+1)
	l.world.serve("tcp", "192.0.2.1:80", listen(t, func(c *net.TCPConn) {
		_, _ = c.Write(make([]byte, 100<<10))
		_ = c.CloseWrite()
		_, _ = io.ReadAll(c)
		c.Close()
		ended <- struct{}{}
	}))
	for range unreadConns {
		c := l.mustDial("192.0.2.1:80")
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	for range unreadConns {
		<-ended
	}
	return l
}

func TestWhatTheGuestDoesNotReadCountsUntilThePolicyEndsIt(t *testing.T) {
	l := unread(t, 0)
	if _, err := l.dial("192.0.2.1:80"); err == nil {
		t.Error("the guest has more connections than it may have")
	}
	if n := l.network.SetPolicy(&reach.Policy{}); n != unreadConns {
		t.Errorf("the policy ended %d connections", n)
	}
	eventually(t, "the connections are gone", func() bool { return l.network.Records()[0].Open == 0 })
}

func TestWhatTheGuestDoesNotReadIsGivenUp(t *testing.T) {
	l := unread(t, 300*time.Millisecond)
	given := l.network.stack.Stats().TCP.EstablishedTimedout
	eventually(t, "the connections are given up", func() bool {
		return given.Value() == unreadConns && l.network.Records()[0].Open == 0
	})
	l.mustDial("192.0.2.1:80")
}
