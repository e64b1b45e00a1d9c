package shim

import (
	"context"
	"net"
	"net/netip"

	"banger"
	"banger/internal/guestwire"
	"banger/internal/vmm"
	"banger/internal/vnet"
)

// Network is the network of a VM: where its guest is and what it may reach.
type Network struct {
	Guest   netip.Addr `json:"guest"`
	Gateway netip.Addr `json:"gateway"`

	NAT   bool     `json:"nat,omitempty"`   // the internet
	Allow []string `json:"allow,omitempty"` // rules as vnet reads them

	Resolvers []string       `json:"resolvers,omitempty"` // ADDRESS:PORT, asked one after the other; none: the host's
	VMs       []netip.Prefix `json:"vms,omitempty"`       // where guests have their addresses from: refused
}

// NIC is the network card of every VM. All have the same, since each is alone on
// its cable.
func NIC() *vmm.NIC { return &vmm.NIC{MAC: vnet.GuestMAC.String(), MTU: vnet.MaxMTU} }

// open makes the network, to which no guest is attached yet.
func (n Network) open() (*vnet.Network, error) {
	policy, err := vnet.ParsePolicy(n.NAT, n.Allow)
	if err != nil {
		return nil, err
	}
	c := vnet.Config{
		Guest: n.Guest, Gateway: n.Gateway, MTU: vnet.MaxMTU, Policy: policy,
		Ground:   vnet.Ground{Own: vnet.HostAddresses(), VMs: n.VMs},
		Dialer:   &net.Dialer{},
		Resolver: vnet.Upstreams(n.Resolvers),
	}
	if len(n.Resolvers) == 0 {
		c.Resolver = vnet.HostResolvers("/etc/resolv.conf")
	}
	if p, err := vnet.NewPingSocket(); err == nil {
		c.Pinger = p
	}
	return vnet.New(c)
}

// plugIn serves the cable of a machine, where it has one, until its end.
func (s *supervisor) plugIn(b *boot) {
	cable := b.machine.Cable()
	if cable == nil || s.network == nil {
		return
	}
	framing := vnet.Stream
	if cable.Packets {
		framing = vnet.Packets
	}
	b.work.Go(func() {
		if err := s.network.Serve(context.Background(), cable, framing); err != nil {
			s.log.Warn("the guest's network ended", "error", err)
		}
	})
}

// place is where the guest is on its cable, nil where it has no network card.
func (s *supervisor) place() *guestwire.Network {
	if s.launch.Machine.NIC == nil {
		return nil
	}
	return s.launch.Network.Place()
}

// Place is where a guest is on its cable.
func (n *Network) Place() *guestwire.Network {
	if n == nil {
		return nil
	}
	return &guestwire.Network{
		MAC: [6]byte(vnet.GuestMAC), Address: n.Guest.As4(), Gateway: n.Gateway.As4(), GatewayMAC: [6]byte(vnet.GatewayMAC),
	}
}

// dial opens a connection to a port of the guest.
func (s *supervisor) dial(ctx context.Context, port uint16) (net.Conn, error) {
	if s.network == nil || s.launch.Machine.NIC == nil {
		return nil, banger.Errorf(banger.Unavailable, "cannot reach port %d of %s: it was started without a network", port, s.launch.Name).
			Hint("banger vm restart %s", s.launch.Name)
	}
	return s.network.Dial(ctx, port)
}
