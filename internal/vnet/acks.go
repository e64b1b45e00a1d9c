package vnet

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// ackDelay is how long a bare acknowledgement waits for something that says the
	// same: the answer to a request, or the end of a connection. Whoever waits for it
	// alone hardly notices.
	ackDelay = time.Millisecond
	// smallAck is how much a second one may acknowledge and still wait. More is a
	// stream, which has every second at once.
	smallAck = 4 << 10
)

// heldAck is the latest bare acknowledgement, which did not leave yet. The stack
// acknowledges every segment by itself; each frame that a guest takes costs it an
// interrupt, and of a short connection's four this leaves two.
type heldAck struct {
	pkt  *stack.PacketBuffer // nil: there is none
	flow [12]byte            // its addresses and ports
	ack  seqnum.Value
}

// hold says which packets leave now that pkt comes, in their order; it owns those it
// keeps, and who calls owns what it returns.
func (h *heldAck) hold(pkt *stack.PacketBuffer) (leave []*stack.PacketBuffer) {
	flow, ack, kind := acknowledges(pkt)
	same := h.pkt != nil && kind != ackNone && flow == h.flow
	switch {
	case same && (kind == ackBare && ack == h.ack || ack.LessThan(h.ack)):
		return append(h.release(), pkt) // the same again says that something was lost
	case same:
		small := ack.LessThan(h.ack.Add(smallAck))
		h.drop()
		if kind != ackBare || !small {
			return []*stack.PacketBuffer{pkt}
		}
	case kind != ackBare:
		return []*stack.PacketBuffer{pkt}
	default:
		leave = h.release()
	}
	h.pkt, h.flow, h.ack = pkt, flow, ack
	return leave
}

// release gives back the one that is held, if one is.
func (h *heldAck) release() (leave []*stack.PacketBuffer) {
	if h.pkt != nil {
		leave = []*stack.PacketBuffer{h.pkt}
	}
	h.pkt = nil
	return leave
}

func (h *heldAck) drop() {
	if h.pkt != nil {
		h.pkt.DecRef()
		h.pkt = nil
	}
}

type ackKind int

const (
	ackNone ackKind = iota // it acknowledges nothing
	ackWith                // and says more
	ackBare
)

func acknowledges(pkt *stack.PacketBuffer) (flow [12]byte, ack seqnum.Value, kind ackKind) {
	ip, tcp := header.IPv4(pkt.NetworkHeader().Slice()), header.TCP(pkt.TransportHeader().Slice())
	if pkt.TransportProtocolNumber != header.TCPProtocolNumber || len(ip) < header.IPv4MinimumSize ||
		len(tcp) < header.TCPMinimumSize || tcp.Flags()&header.TCPFlagAck == 0 {
		return flow, 0, ackNone
	}
	copy(flow[:], ip[12:20])
	copy(flow[8:], tcp[:4])
	kind = ackWith
	if tcp.Flags() == header.TCPFlagAck && pkt.Data().Size() == 0 {
		kind = ackBare
	}
	return flow, seqnum.Value(tcp.AckNumber()), kind
}
