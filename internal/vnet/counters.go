package vnet

import (
	"sync/atomic"

	"banger/internal/vnet/reach"
)

// counters are reach.Counters while they count.
type counters struct {
	framesIn, framesOut, ipv6, spoofed, broadcast, stray, martian, malformed, otherProtocol, queueFull,
	refusedTCP, refusedUDP, refusedICMP, overLimit, ended,
	dnsQueries, dnsRefused, dnsFiltered, dnsDropped, dnsLongNames, dnsManyNames atomic.Uint64
}

func (c *counters) read() reach.Counters {
	return reach.Counters{
		FramesIn: c.framesIn.Load(), FramesOut: c.framesOut.Load(),
		IPv6: c.ipv6.Load(), Spoofed: c.spoofed.Load(), Broadcast: c.broadcast.Load(), Stray: c.stray.Load(),
		Martian: c.martian.Load(), Malformed: c.malformed.Load(), OtherProtocol: c.otherProtocol.Load(),
		QueueFull:  c.queueFull.Load(),
		RefusedTCP: c.refusedTCP.Load(), RefusedUDP: c.refusedUDP.Load(), RefusedICMP: c.refusedICMP.Load(),
		OverLimit: c.overLimit.Load(), Ended: c.ended.Load(),
		DNSQueries: c.dnsQueries.Load(), DNSRefused: c.dnsRefused.Load(), DNSFiltered: c.dnsFiltered.Load(),
		DNSDropped: c.dnsDropped.Load(), DNSLongNames: c.dnsLongNames.Load(), DNSManyNames: c.dnsManyNames.Load(),
	}
}
