package vnet

import (
	"context"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	maxPings    = 16
	pingTimeout = 10 * time.Second
)

// handleICMP takes an echo, whole. The stack answers those to the gateway itself;
// the others are judged and sent again by a socket that needs no privilege, so
// that only their data travels. What is refused stays without an answer.
func (n *Network) handleICMP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	from, to := fromTCPIP(id.RemoteAddress), fromTCPIP(id.LocalAddress)
	view := stack.PayloadSince(pkt.TransportHeader())
	defer view.Release()
	message := header.ICMPv4(view.AsSlice())
	if to == n.config.Gateway || len(message) < header.ICMPv4MinimumSize || message.Type() != header.ICMPv4Echo {
		return to != n.config.Gateway
	}
	if header.IPv4MinimumSize+len(message) > n.config.MTU {
		n.counters.malformed.Add(1) // a reply would not fit one packet
		return true
	}
	f := n.ping(to)
	if f == nil {
		n.counters.refusedICMP.Add(1)
		return true
	}
	message = append(header.ICMPv4(nil), message...)
	go func() {
		ctx, cancel := context.WithTimeout(f.ctx, pingTimeout)
		defer cancel()
		data, err := n.config.Pinger.Ping(ctx, to, message.Payload())
		if err == nil && f.ctx.Err() == nil {
			f.account.sent.Add(uint64(len(message.Payload())))
			f.account.received.Add(uint64(len(data)))
			n.traffic.Add(1)
			n.link.send(header.IPv4ProtocolNumber, echoReply(to, from, message, data))
		}
		f.end(err != nil)
	}()
	return true
}

func (n *Network) ping(to netip.Addr) *flow {
	if n.config.Pinger == nil {
		return nil
	}
	return n.beginFlow("icmp", maxPings, to, 0)
}

func echoReply(from, to netip.Addr, request header.ICMPv4, data []byte) []byte {
	packet := make([]byte, header.IPv4MinimumSize+header.ICMPv4MinimumSize+len(data))
	header.IPv4(packet).Encode(&header.IPv4Fields{
		TotalLength: uint16(len(packet)), TTL: 64, Protocol: uint8(header.ICMPv4ProtocolNumber),
		SrcAddr: toTCPIP(from), DstAddr: toTCPIP(to),
	})
	header.IPv4(packet).SetChecksum(^header.IPv4(packet).CalculateChecksum())
	reply := header.ICMPv4(packet[header.IPv4MinimumSize:])
	reply.SetType(header.ICMPv4EchoReply)
	reply.SetIdent(request.Ident())
	reply.SetSequence(request.Sequence())
	copy(reply.Payload(), data)
	reply.SetChecksum(^checksum.Checksum(reply, 0))
	return packet
}
