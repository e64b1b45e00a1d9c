package reach

import "net/netip"

// Site is where a guest is and what it may reach.
type Site struct {
	Guest, Gateway netip.Addr
	Policy         *Policy
	Resolvers      []string       // ADDRESS:PORT, asked one after the other; none: the host's
	VMs            []netip.Prefix // where guests have their addresses from
}
