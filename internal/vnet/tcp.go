package vnet

import (
	"context"
	"errors"
	"net"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// forwardTCP takes one connection of the guest. The guest's side is made only
// when the other stands: where nobody is there, the guest is refused too.
func (n *Network) forwardTCP(r *tcp.ForwarderRequest) {
	id := r.ID()
	f := n.beginFlow("tcp", n.config.Limits.TCP, fromTCPIP(id.LocalAddress), id.LocalPort)
	if f == nil {
		n.counters.refusedTCP.Add(1)
		r.Complete(true)
		return
	}
	failed := true
	defer func() { f.end(failed) }()
	ctx, cancel := context.WithTimeout(f.ctx, n.config.Limits.Dial)
	host, err := n.config.Dialer.DialContext(ctx, "tcp", f.address())
	cancel()
	if err != nil {
		r.Complete(true)
		return
	}
	g := &guestSide{}
	ep, fault := r.CreateEndpoint(&g.queue)
	r.Complete(false)
	if fault != nil {
		abort(host) // the guest has given up already
		return
	}
	failed = false
	ep.SocketOptions().SetKeepAlive(true)
	g.endpoint, g.conn = ep, gonet.NewTCPConn(&g.queue, ep)
	f.splice(g, host)
}

// splice carries bytes both ways until both sides have ended theirs, each end
// passed on as such. What breaks on one side is a reset on the other, and so is
// the end of the flow.
func (f *flow) splice(g *guestSide, host net.Conn) {
	ctx, reset := context.WithCancel(f.ctx)
	defer reset()
	stop := context.AfterFunc(ctx, func() {
		g.endpoint.Abort()
		abort(host)
	})
	done := make(chan error, 1)
	go func() { done <- f.toGuest(ctx, g, host) }()
	err := f.toHost(ctx, g, host)
	if err != nil {
		reset()
	}
	if other := <-done; other != nil {
		err = errors.Join(err, other)
	}
	if err == nil {
		host.Close()
		g.finish(ctx, f.network.config.Limits.Linger)
	}
	if stop() && err == nil {
		return
	}
	g.endpoint.Abort()
	abort(host)
}

func (f *flow) toHost(ctx context.Context, g *guestSide, host net.Conn) error {
	err := copyEndpoint(ctx, g.endpoint, &g.queue, func(b []byte) error {
		n, err := host.Write(b)
		f.account.sent.Add(uint64(n))
		f.network.traffic.Add(1)
		return err
	})
	if err != nil {
		return err
	}
	closeWrite(host)
	return nil
}

func (f *flow) toGuest(ctx context.Context, g *guestSide, host net.Conn) error {
	err := copyFrom(host, true, func(b []byte) error {
		n, err := g.conn.Write(b)
		f.account.received.Add(uint64(n))
		f.network.traffic.Add(1)
		return err
	})
	if err == nil {
		err = g.conn.CloseWrite()
	}
	if err != nil && ctx.Err() == nil {
		g.endpoint.Abort() // the other direction must not wait for a side that is gone
		abort(host)
	}
	return err
}

func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // of one that is gone: the other direction says so
	}
}

// abort ends a connection so that the other side sees that it broke.
func abort(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // of one that is gone: nobody to tell
	}
	c.Close()
}

// guestSide is the stack's end of a guest's connection.
type guestSide struct {
	queue    waiter.Queue
	endpoint tcpip.Endpoint
	conn     *gonet.TCPConn
}

// finish closes what both sides have ended and waits until the guest has taken the
// rest, which is memory of ours: so long the connection counts. A guest that keeps its
// window shut acknowledges each probe of it and would never be given up without a
// time-out.
func (g *guestSide) finish(ctx context.Context, linger time.Duration) {
	entry, over := waiter.NewChannelEntry(waiter.EventHUp)
	g.queue.EventRegister(&entry)
	defer g.queue.EventUnregister(&entry)
	timeout := tcpip.TCPUserTimeoutOption(linger)
	_ = g.endpoint.SetSockOpt(&timeout) // of one that is gone: there is nothing to wait for
	g.conn.Close()
	if g.endpoint.Readiness(waiter.EventHUp) != 0 {
		return
	}
	select {
	case <-over:
	case <-ctx.Done():
	}
}
