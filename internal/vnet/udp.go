package vnet

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// forwardUDP takes the first datagram of a conversation. What is refused is
// unreachable to the guest, so that its programs need not wait.
func (n *Network) forwardUDP(r *udp.ForwarderRequest) bool {
	id := r.ID()
	f := n.beginFlow("udp", n.config.Limits.UDP, fromTCPIP(id.LocalAddress), id.LocalPort)
	if f == nil {
		n.counters.refusedUDP.Add(1)
		return false
	}
	c := &conversation{flow: f, idle: n.config.Limits.UDPIdle}
	ep, fault := r.CreateEndpoint(&c.queue) // now, so that the next datagrams wait in it
	if fault != nil {
		f.end(true)
		return true // two first datagrams at once, and the other was quicker
	}
	c.guest = gonet.NewUDPConn(&c.queue, ep)
	go func() {
		host, err := n.config.Dialer.DialContext(f.ctx, "udp", f.address())
		if err != nil {
			ep.Close()
			f.end(true)
			return
		}
		c.host = host
		c.run(func() error {
			return copyEndpoint(f.ctx, ep, &c.queue, c.toHost)
		})
		f.end(false)
	}()
	return true
}

// conversation is a pair of addresses that exchange datagrams, until both were
// quiet for a while.
type conversation struct {
	flow  *flow
	idle  time.Duration
	queue waiter.Queue
	guest *gonet.UDPConn
	host  net.Conn
	used  atomic.Int64
}

func (c *conversation) run(fromGuest func() error) {
	var quiet *time.Timer
	var mu sync.Mutex
	c.touch()
	mu.Lock()
	quiet = time.AfterFunc(c.idle, func() {
		mu.Lock()
		defer mu.Unlock()
		if left := c.idle - time.Since(time.Unix(0, c.used.Load())); left > 0 {
			quiet.Reset(left)
			return
		}
		c.flow.cancel()
	})
	mu.Unlock()
	defer quiet.Stop()
	var both sync.WaitGroup
	both.Go(func() {
		defer c.flow.cancel()
		_ = fromGuest() // it ends when either side is closed, or refuses
	})
	both.Go(func() {
		defer c.flow.cancel()
		_ = copyFrom(c.host, false, c.toGuest)
	})
	<-c.flow.ctx.Done()
	c.guest.Close()
	c.host.Close()
	both.Wait()
}

func (c *conversation) touch() { c.used.Store(time.Now().UnixNano()) }

func (c *conversation) toHost(b []byte) error {
	c.touch()
	n, err := c.host.Write(b)
	c.flow.account.sent.Add(uint64(n))
	return err
}

func (c *conversation) toGuest(b []byte) error {
	c.touch()
	n, err := c.guest.Write(b)
	c.flow.account.received.Add(uint64(n))
	c.flow.network.traffic.Add(1)
	return err
}
