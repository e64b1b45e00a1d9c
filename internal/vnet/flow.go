package vnet

import (
	"context"
	"net/netip"
	"strconv"

	"banger/internal/vnet/reach"
)

// flow is one connection or conversation that was allowed. Its context ends when
// the policy no longer allows it, the machine is gone, or the network closes.
type flow struct {
	network  *Network
	protocol string
	to       reach.Destination // with the names that counted when it began
	account  *account
	ctx      context.Context
	cancel   context.CancelFunc
}

// destination is what a guest means by an address and a port.
func (n *Network) destination(addr netip.Addr, port uint16) reach.Destination {
	if addr == n.config.Gateway {
		return reach.Destination{Addr: addr, Port: port, Host: true}
	}
	return reach.Destination{Addr: addr, Port: port, Names: n.names.of(addr)}
}

// begin judges a connection and registers it in one step, so that a change of the
// policy either is seen here or finds the flow. Without one the answer is no, and
// it is written down.
func (n *Network) beginFlow(protocol string, limit int, addr netip.Addr, port uint16) *flow {
	to := n.destination(addr, port)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || !n.serves {
		return nil
	}
	v := n.policy.Check(n.config.Ground, to)
	if v.Allowed && n.open[protocol] >= limit {
		n.counters.overLimit.Add(1)
		v = reach.Verdict{Name: v.Name, Why: "more connections than a VM may have"}
	}
	a := n.records.note(protocol, to, v)
	if !v.Allowed {
		return nil
	}
	f := &flow{network: n, protocol: protocol, to: to, account: a}
	f.ctx, f.cancel = context.WithCancel(n.ctx)
	n.flows[f] = struct{}{}
	n.open[protocol]++
	n.work.Add(1)
	return f
}

func (f *flow) end(failed bool) {
	f.cancel()
	n := f.network
	n.mu.Lock()
	delete(n.flows, f)
	n.open[f.protocol]--
	n.mu.Unlock()
	n.records.closed(f.account, failed)
	n.work.Done()
}

// endFlows ends the flows of which is true and says how many.
func (n *Network) endFlows(which func(*flow) bool) (ended int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for f := range n.flows {
		if which(f) && f.ctx.Err() == nil {
			f.cancel()
			ended++
		}
	}
	return ended
}

// address is where the dialer reaches the destination.
func (f *flow) address() string {
	host := f.to.Addr.String()
	if f.to.Host {
		host = "127.0.0.1"
	}
	return host + ":" + strconv.Itoa(int(f.to.Port))
}
