package vnet

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/miekg/dns"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"banger"
)

// Dial opens a connection to a port of the guest, from the gateway: the way in
// for port forwards. What listens on the guest's loopback address alone is not
// reached like this.
func (n *Network) Dial(ctx context.Context, port uint16) (net.Conn, error) {
	n.mu.Lock()
	serves := n.serves && !n.closed
	n.mu.Unlock()
	if !serves {
		return nil, banger.Errorf(banger.Unavailable, "cannot reach port %d of the guest: its network is not attached", port)
	}
	from := tcpip.FullAddress{NIC: nic, Addr: toTCPIP(n.config.Gateway)}
	to := tcpip.FullAddress{NIC: nic, Addr: toTCPIP(n.config.Guest), Port: port}
	c, err := gonet.DialTCPWithBind(ctx, n.stack, from, to, ipv4.ProtocolNumber)
	if err != nil {
		return nil, banger.Errorf(banger.Unavailable, "cannot reach port %d of the guest: %w", port, err)
	}
	return c, nil
}

// startDNS answers at the gateway's port 53.
func (n *Network) startDNS() error {
	l := n.config.Limits
	handler := &nameServer{
		gateway: n.config.Gateway, ground: n.config.Ground, policy: n.Policy, resolver: n.config.Resolver,
		names: n.names, records: n.records, counters: n.counters,
		rate: newBucket(n.config.Now, l.DNSSecond, l.DNSBurst), tunnels: newTunnels(),
		asking: make(chan struct{}, 64), ctx: n.ctx,
	}
	at := tcpip.FullAddress{NIC: nic, Addr: toTCPIP(n.config.Gateway), Port: 53}
	packets, err := gonet.DialUDP(n.stack, &at, nil, ipv4.ProtocolNumber)
	if err != nil {
		return err
	}
	listener, err := listenForDNS(n.stack, at, l.Linger)
	if err != nil {
		packets.Close()
		return err
	}
	for _, s := range []*dns.Server{
		{PacketConn: packets, Handler: handler},
		{Listener: &fewListener{Listener: listener, places: make(chan struct{}, dnsTCPConns)}, MaxTCPQueries: dnsTCPQueries, Handler: handler},
	} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		n.work.Go(func() { _ = s.ActivateAndServe() }) // until Close shuts it down
		<-started
		n.dns = append(n.dns, s)
	}
	return nil
}

// listenForDNS gives up connections whose guest takes nothing of its answers: what has
// been closed with answers unread takes memory and no place.
func listenForDNS(s *stack.Stack, at tcpip.FullAddress, linger time.Duration) (net.Listener, error) {
	var queue waiter.Queue
	ep, fault := s.NewEndpoint(tcp.ProtocolNumber, ipv4.ProtocolNumber, &queue)
	if fault != nil {
		return nil, stackError(fault)
	}
	timeout := tcpip.TCPUserTimeoutOption(linger) // connections have their listener's
	for _, step := range []func() tcpip.Error{
		func() tcpip.Error { return ep.SetSockOpt(&timeout) },
		func() tcpip.Error { return ep.Bind(at) },
		func() tcpip.Error { return ep.Listen(4096) },
	} {
		if fault := step(); fault != nil {
			ep.Close()
			return nil, stackError(fault)
		}
	}
	return gonet.NewTCPListener(s, &queue, ep), nil
}

// fewListener closes what comes beyond its places at once.
type fewListener struct {
	net.Listener
	places chan struct{}
}

func (l *fewListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.places <- struct{}{}:
			return &placedConn{Conn: c, leave: sync.OnceFunc(func() { <-l.places })}, nil
		default:
			c.Close()
		}
	}
}

type placedConn struct {
	net.Conn
	leave func()
}

// Write has an end where the guest reads no answers. The library sets none.
func (c *placedConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(dnsTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *placedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
