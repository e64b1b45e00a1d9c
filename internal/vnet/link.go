package vnet

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	maxQueuedFrames = 4096
	maxQueuedBytes  = 4 << 20
)

// link is the stack's side of the cable. It looks at every frame of the guest
// before the stack does and knows the two stations there are, so the stack itself
// deals in IP alone. What goes to the guest waits in a bounded queue: where the
// guest is too slow it is dropped, and nothing waits for a guest.
type link struct {
	mtu                  uint32
	guest, gateway       netip.Addr
	guestMAC, gatewayMAC net.HardwareAddr
	counters             *counters
	dispatcher           atomic.Pointer[stack.NetworkDispatcher]
	mu                   sync.Mutex
	queue                []*stack.PacketBuffer
	queued               int    // bytes
	attached             bool   // somebody takes frames from the queue
	writing              bool   // and is writing some
	rest                 []byte // of a frame, before all of the queue
	straight             straight
	held                 heldAck
	release              *time.Timer // of held
	wake                 chan struct{}
}

func newLink(c Config, n *counters) *link {
	l := &link{
		mtu: uint32(c.MTU), guest: c.Guest, gateway: c.Gateway, guestMAC: c.GuestMAC, gatewayMAC: c.GatewayMAC,
		counters: n, wake: make(chan struct{}, 1),
	}
	l.release = time.AfterFunc(ackDelay, l.releaseHeld)
	return l
}

// deliver takes one frame of the guest.
func (l *link) deliver(frame []byte) {
	l.counters.framesIn.Add(1)
	if len(frame) < ethernetSize {
		l.counters.malformed.Add(1)
		return
	}
	to, from, kind, payload := frame[:6], frame[6:12], binary.BigEndian.Uint16(frame[12:]), frame[ethernetSize:]
	switch isGateway := string(to) == string(l.gatewayMAC); {
	case kind == uint16(header.IPv6ProtocolNumber):
		l.counters.ipv6.Add(1)
	case string(from) != string(l.guestMAC):
		l.counters.spoofed.Add(1)
	case kind == uint16(header.ARPProtocolNumber) && (isGateway || isBroadcast(to)):
		l.answerARP(payload)
	case to[0]&1 == 1:
		l.counters.broadcast.Add(1)
	case !isGateway:
		l.counters.stray.Add(1)
	case kind != uint16(header.IPv4ProtocolNumber):
		l.counters.otherProtocol.Add(1)
	default:
		l.deliverIPv4(payload)
	}
}

func isBroadcast(mac []byte) bool { return string(mac) == "\xff\xff\xff\xff\xff\xff" }

// deliverIPv4 lets pass what an ordinary host sends: from its own address, to one
// that a packet can be for, without options, of the three protocols we know.
// Options go for good: they can name a way round, and nobody uses them.
func (l *link) deliverIPv4(packet []byte) {
	h := header.IPv4(packet)
	if len(packet) < header.IPv4MinimumSize || packet[0] != 0x45 || int(h.TotalLength()) > len(packet) ||
		h.TotalLength() < header.IPv4MinimumSize || uint32(h.TotalLength()) > l.mtu {
		l.counters.malformed.Add(1)
		return
	}
	to := fromTCPIP(h.DestinationAddress())
	first := to.As4()[0]
	switch {
	case fromTCPIP(h.SourceAddress()) != l.guest:
		l.counters.spoofed.Add(1)
	case to.IsMulticast() || to == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		l.counters.broadcast.Add(1)
	case first == 0 || first == 127 || first >= 240 || to == l.guest:
		l.counters.martian.Add(1)
	case h.Protocol() != uint8(header.TCPProtocolNumber) && h.Protocol() != uint8(header.UDPProtocolNumber) && h.Protocol() != uint8(header.ICMPv4ProtocolNumber):
		l.counters.otherProtocol.Add(1)
	case isTinyFragment(h):
		l.counters.malformed.Add(1)
	default:
		l.inject(packet[:h.TotalLength()])
	}
}

// isTinyFragment says whether a first fragment ends within the header of its
// protocol. Nobody sends such but to slip past a filter, and the stack, which joins
// them well, looks afterwards at memory that it has given back.
func isTinyFragment(h header.IPv4) bool {
	if !h.More() || h.FragmentOffset() != 0 {
		return false
	}
	payload := h.Payload()
	if h.Protocol() == uint8(header.TCPProtocolNumber) {
		return len(payload) < header.TCPMinimumSize || len(payload) < int(header.TCP(payload).DataOffset())
	}
	return len(payload) < header.UDPMinimumSize // as long as that of ICMP
}

func (l *link) inject(packet []byte) {
	d := l.dispatcher.Load()
	if d == nil {
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(packet)})
	defer pkt.DecRef()
	(*d).DeliverNetworkPacket(header.IPv4ProtocolNumber, pkt)
}

// answerARP tells the guest where the gateway is, and of nobody else: the guest
// has no neighbours. Its own questions about itself (is this address free?) stay
// without an answer.
func (l *link) answerARP(packet []byte) {
	h := header.ARP(packet)
	if len(packet) < header.ARPSize || !h.IsValid() {
		l.counters.malformed.Add(1)
		return
	}
	sender := [4]byte(h.ProtocolAddressSender())
	if string(h.HardwareAddressSender()) != string(l.guestMAC) || sender != l.guest.As4() && sender != [4]byte{} {
		l.counters.spoofed.Add(1)
		return
	}
	if h.Op() != header.ARPRequest || [4]byte(h.ProtocolAddressTarget()) != l.gateway.As4() {
		return
	}
	reply := header.ARP(make([]byte, header.ARPSize))
	reply.SetIPv4OverEthernet()
	reply.SetOp(header.ARPReply)
	copy(reply.HardwareAddressSender(), l.gatewayMAC)
	copy(reply.ProtocolAddressSender(), l.gateway.AsSlice())
	copy(reply.HardwareAddressTarget(), l.guestMAC)
	copy(reply.ProtocolAddressTarget(), h.ProtocolAddressSender())
	l.send(header.ARPProtocolNumber, reply)
}

// send queues a packet of our own making.
func (l *link) send(kind tcpip.NetworkProtocolNumber, packet []byte) {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(packet)})
	defer pkt.DecRef()
	pkt.NetworkProtocolNumber = kind
	l.push(pkt)
}

// push queues a packet, or drops it where the queue is full or nobody takes it. A
// bare acknowledgement waits a moment first.
func (l *link) push(pkt *stack.PacketBuffer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.attached {
		return
	}
	had := l.held.pkt
	leave := l.held.hold(pkt.IncRef())
	switch {
	case l.held.pkt != nil && had == nil:
		l.release.Reset(ackDelay)
	case l.held.pkt == nil && had != nil:
		l.release.Stop() // or we are woken for nothing
	}
	l.enqueue(leave)
}

// releaseHeld lets go what waited long enough.
func (l *link) releaseHeld() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.enqueue(l.held.release())
}

// enqueue takes over packets, with mu held.
func (l *link) enqueue(pkts []*stack.PacketBuffer) {
	for _, pkt := range pkts {
		if l.writeStraight(pkt) {
			pkt.DecRef()
			continue
		}
		if len(l.queue) >= maxQueuedFrames || l.queued+pkt.Size() > maxQueuedBytes {
			l.counters.queueFull.Add(1)
			pkt.DecRef()
			continue
		}
		l.queue = append(l.queue, pkt)
		l.queued += pkt.Size()
	}
	if len(l.queue) == 0 && l.rest == nil {
		return
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// writeStraight writes a packet now if nothing is to leave before it. With mu held.
func (l *link) writeStraight(pkt *stack.PacketBuffer) (ok bool) {
	if l.writing || l.rest != nil || len(l.queue) > 0 {
		return false
	}
	if l.rest, ok = l.straight.write(pkt, l.header); ok {
		l.counters.framesOut.Add(1)
	}
	return ok
}

// pop moves up to a batch of packets into into, which then owns them. What is left of
// a frame goes out before them.
func (l *link) pop(into []*stack.PacketBuffer) (rest []byte, _ []*stack.PacketBuffer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rest, l.rest = l.rest, nil
	n := min(len(l.queue), maxBatch)
	into = append(into[:0], l.queue[:n]...)
	left := copy(l.queue, l.queue[n:])
	clear(l.queue[left:])
	l.queue = l.queue[:left]
	for _, pkt := range into {
		l.queued -= pkt.Size()
	}
	l.writing = len(rest) > 0 || n > 0
	return rest, into
}

// attach begins the queue.
func (l *link) attach(s straight) { l.reset(true, s) }

// detach ends the queue.
func (l *link) detach() { l.reset(false, straight{}) }

// reset drops what is left of the queue.
func (l *link) reset(attached bool, s straight) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.attached, l.straight, l.writing, l.rest = attached, s, false, nil
	for _, pkt := range l.queue {
		pkt.DecRef()
	}
	l.queue, l.queued = nil, 0
	l.held.drop()
}

// header writes the Ethernet header of a packet to the guest.
func (l *link) header(pkt *stack.PacketBuffer, to []byte) {
	copy(to, l.guestMAC)
	copy(to[6:], l.gatewayMAC)
	binary.BigEndian.PutUint16(to[12:], uint16(pkt.NetworkProtocolNumber))
}

// The methods below make link a stack.LinkEndpoint.

func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	for _, pkt := range pkts.AsSlice() {
		l.push(pkt)
	}
	return pkts.Len(), nil
}

func (l *link) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		l.dispatcher.Store(nil)
		return
	}
	l.dispatcher.Store(&d)
}

func (l *link) IsAttached() bool                        { return l.dispatcher.Load() != nil }
func (l *link) MTU() uint32                             { return l.mtu }
func (l *link) SetMTU(uint32)                           {}
func (l *link) MaxHeaderLength() uint16                 { return 0 }
func (l *link) LinkAddress() tcpip.LinkAddress          { return tcpip.LinkAddress(l.gatewayMAC) }
func (l *link) SetLinkAddress(tcpip.LinkAddress)        {}
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }
func (l *link) AddHeader(*stack.PacketBuffer)           {}
func (l *link) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (l *link) Wait()                                   {}
func (l *link) Close()                                  { l.release.Stop() }
func (l *link) SetOnCloseAction(func())                 {}

// A socket pair damages nothing, so sums of what arrives are not checked.
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

func fromTCPIP(a tcpip.Address) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.AsSlice())
	return addr
}

func toTCPIP(a netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(a.AsSlice()) }
