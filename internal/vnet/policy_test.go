package vnet

import (
	"net/netip"
	"testing"

	"banger/internal/vnet/reach"
)

func mustPolicy(t testing.TB, nat bool, allow ...string) *reach.Policy {
	t.Helper()
	p, err := reach.ParsePolicy(nat, allow)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// ground is a host with one public and one private address, whose VMs live in
// the default range.
var ground = reach.Ground{
	Own: func() []netip.Addr {
		return []netip.Addr{netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("192.168.1.5")}
	},
	VMs: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16")},
}
