package vm

import (
	"net"
	"net/netip"

	"banger"
	"banger/internal/config"
	"banger/internal/shim"
	"banger/internal/vnet"
)

// checkNetwork refuses rules that say nothing, before anything is made.
func checkNetwork(s banger.Spec) error {
	_, err := vnet.ParsePolicy(s.NAT, s.Allow)
	return err
}

// networkOf describes the network of a VM for its shim. Its gateway is the first
// address of the range, which no VM has.
func networkOf(row banger.VM, cfg config.Config) (*shim.Network, error) {
	prefix, err := cfg.Network()
	if err != nil {
		return nil, err
	}
	guest, err := netip.ParseAddr(row.GuestIP)
	if err != nil || !guest.Is4() {
		return nil, banger.Errorf(banger.Internal, "its address %q is none", row.GuestIP)
	}
	gateway := prefix.Addr().Next()
	if gateway == guest { // a VM of another range than today's
		gateway = prefix.Addr()
	}
	n := &shim.Network{
		Guest: guest, Gateway: gateway, NAT: row.Spec.NAT, Allow: row.Spec.Allow, VMs: []netip.Prefix{prefix},
	}
	if cfg.DefaultDNS != "" {
		n.Resolvers = []string{net.JoinHostPort(cfg.DefaultDNS, "53")}
	}
	return n, nil
}
