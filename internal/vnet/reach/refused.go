package reach

import (
	"encoding/binary"
	"net/netip"
)

// kind is a range that no mode opens, and why.
type kind struct {
	prefix netip.Prefix
	what   string
	opens  bool // an address rule may open it
}

func (k *kind) contains(p netip.Prefix) bool {
	return p.Bits() >= k.prefix.Bits() && k.prefix.Contains(p.Addr())
}

// kinds lists what is refused in every mode. Documentation ranges are not among
// them: they are as ordinary as any.
var kinds = []kind{
	{netip.MustParsePrefix("0.0.0.0/8"), "an address of no host", false},
	{netip.MustParsePrefix("10.0.0.0/8"), "a private address", true},
	{netip.MustParsePrefix("100.64.0.0/10"), "an address of a provider's network", true},
	{netip.MustParsePrefix("127.0.0.0/8"), "a loopback address", false},
	{netip.MustParsePrefix("169.254.0.0/16"), "a link-local address", true},
	{netip.MustParsePrefix("172.16.0.0/12"), "a private address", true},
	{netip.MustParsePrefix("192.168.0.0/16"), "a private address", true},
	{netip.MustParsePrefix("224.0.0.0/3"), "a multicast or reserved address", false},
	{netip.MustParsePrefix("::/128"), "an address of no host", false},
	{netip.MustParsePrefix("::1/128"), "a loopback address", false},
	{netip.MustParsePrefix("fc00::/7"), "a private address", true},
	{netip.MustParsePrefix("fe80::/10"), "a link-local address", true},
	{netip.MustParsePrefix("ff00::/8"), "a multicast address", false},
}

// kindOf is the refused range that addr is in, or nil.
func kindOf(addr netip.Addr) *kind {
	for i := range kinds {
		if kinds[i].prefix.Contains(addr) {
			return &kinds[i]
		}
	}
	return nil
}

// Ground is what the host adds to the ranges that are refused everywhere.
type Ground struct {
	// Own gives the addresses of the host's interfaces, now. It is asked for
	// every connection, so it should remember for a second or two.
	Own func() []netip.Addr
	// VMs are the ranges that guests have their addresses from: no rule opens
	// them, since nobody is there but other VMs.
	VMs []netip.Prefix
}

// refusals gives every refused range that addr is in.
func (g Ground) refusals(addr netip.Addr) []kind {
	var all []kind
	if k := kindOf(addr); k != nil {
		all = append(all, *k)
	}
	for _, p := range g.VMs {
		if p.Contains(addr) {
			all = append(all, kind{p, "an address of VMs", false})
		}
	}
	if g.Own == nil {
		return all
	}
	for _, own := range g.Own() {
		if own = own.Unmap().WithZone(""); own == addr {
			all = append(all, kind{netip.PrefixFrom(own, own.BitLen()), "an address of this host", true})
		}
	}
	return all
}

var (
	nat64      = netip.MustParsePrefix("64:ff9b::/96")
	nat64Local = netip.MustParsePrefix("64:ff9b:1::/48")
	sixToFour  = netip.MustParsePrefix("2002::/16")
	teredo     = netip.MustParsePrefix("2001::/32")
	compatible = netip.MustParsePrefix("::/96")
)

// inner is the address that addr leads to: an IPv6 form of an IPv4 address is
// that address, so that no range is reached by another spelling.
func inner(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if !addr.Is6() {
		return addr
	}
	b := addr.As16()
	switch {
	case nat64.Contains(addr), nat64Local.Contains(addr),
		compatible.Contains(addr) && binary.BigEndian.Uint32(b[12:]) > 1: // :: and ::1 are themselves
		return netip.AddrFrom4([4]byte(b[12:16]))
	case sixToFour.Contains(addr):
		return netip.AddrFrom4([4]byte(b[2:6]))
	case teredo.Contains(addr):
		return netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})
	}
	return addr
}
