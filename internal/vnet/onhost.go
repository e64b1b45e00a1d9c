package vnet

import (
	"net"

	"banger/internal/vnet/reach"
)

// OnHost makes the network of a guest whose way out is this host's: its
// connections, its resolvers and, where this user may, its pings.
func OnHost(s reach.Site) (*Network, error) {
	c := Config{
		Guest: s.Guest, Gateway: s.Gateway, MTU: reach.MaxMTU, Policy: s.Policy,
		Ground:   reach.Ground{Own: HostAddresses(), VMs: s.VMs},
		Dialer:   &net.Dialer{},
		Resolver: Upstreams(s.Resolvers),
	}
	if len(s.Resolvers) == 0 {
		c.Resolver = HostResolvers("/etc/resolv.conf")
	}
	if p, err := NewPingSocket(); err == nil {
		c.Pinger = p
	}
	return New(c)
}
