package ways

import (
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

var (
	broadcastMAC = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	multicastMAC = net.HardwareAddr{0x01, 0x00, 0x5e, 0, 0, 0xfb}
	otherMAC     = net.HardwareAddr{0x52, 0x54, 0, 1, 2, 3}
)

func address(text string) tcpip.Address {
	if text == "" {
		text = guest
	}
	return tcpip.AddrFromSlice(netip.MustParseAddr(text).AsSlice())
}

func frame(to, from net.HardwareAddr, kind uint16, payload []byte) []byte {
	f := append(append([]byte{}, to...), from...)
	return append(append(f, byte(kind>>8), byte(kind)), payload...)
}

// Packet is what a guest's raw socket can make: any addresses and any payload.
type Packet struct {
	From, To       string // the guest's where empty
	Protocol       uint8
	ID, Offset     uint16
	More           bool
	Options        []byte
	Payload        []byte
	ToMAC, FromMAC net.HardwareAddr
}

// Frame is the packet as it is on the cable.
func (p Packet) Frame() []byte {
	options := header.IPv4OptionsSerializer{}
	b := make([]byte, header.IPv4MinimumSize+len(p.Options)+len(p.Payload))
	h := header.IPv4(b)
	flags := uint8(0)
	if p.More {
		flags = header.IPv4FlagMoreFragments
	}
	h.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(b)), ID: p.ID, TTL: 64, Protocol: p.Protocol, Flags: flags, FragmentOffset: p.Offset, Options: options,
		SrcAddr: address(p.From), DstAddr: address(p.To),
	})
	if len(p.Options) > 0 {
		b[0] = 0x40 | byte((header.IPv4MinimumSize+len(p.Options))/4)
		copy(b[header.IPv4MinimumSize:], p.Options)
	}
	copy(b[header.IPv4MinimumSize+len(p.Options):], p.Payload)
	h.SetChecksum(0)
	h.SetChecksum(^h.CalculateChecksum())
	toMAC, fromMAC := GatewayMAC, GuestMAC
	if p.ToMAC != nil {
		toMAC = p.ToMAC
	}
	if p.FromMAC != nil {
		fromMAC = p.FromMAC
	}
	return frame(toMAC, fromMAC, 0x0800, b)
}

// SYN begins a TCP connection.
func SYN(from, to string, port uint16) []byte {
	s := header.TCP(make([]byte, header.TCPMinimumSize))
	s.Encode(&header.TCPFields{SrcPort: 40000, DstPort: port, SeqNum: 7, DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagSyn, WindowSize: 60000})
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, address(from), address(to), uint16(len(s)))
	s.SetChecksum(^s.CalculateChecksum(sum))
	return s
}

// RawSYN is a frame that does, from a raw socket.
func RawSYN(to string, port uint16, change ...func(*Packet)) []byte {
	p := Packet{To: to, Protocol: 6, Payload: SYN(guest, to, port)}
	for _, f := range change {
		f(&p)
	}
	return p.Frame()
}

// Datagram is one of UDP.
func Datagram(port uint16, data string) []byte {
	u := header.UDP(make([]byte, header.UDPMinimumSize+len(data)))
	u.Encode(&header.UDPFields{SrcPort: 40000, DstPort: port, Length: uint16(len(u))}) // no sum: there need be none
	copy(u.Payload(), data)
	return u
}

// Ping is a frame with an ICMP echo.
func Ping(to, data string) []byte {
	e := header.ICMPv4(append(make([]byte, header.ICMPv4MinimumSize), data...))
	e.SetType(header.ICMPv4Echo)
	e.SetIdent(9)
	e.SetChecksum(^checksum.Checksum(e, 0))
	return Packet{To: to, Protocol: 1, Payload: e}.Frame()
}

// Sixth is a frame with an IPv6 packet.
func Sixth(to string) []byte {
	b := make([]byte, header.IPv6MinimumSize+header.TCPMinimumSize)
	const from = "fe80::2"
	header.IPv6(b).Encode(&header.IPv6Fields{
		PayloadLength: header.TCPMinimumSize, TransportProtocol: 6, HopLimit: 64, SrcAddr: address(from), DstAddr: address(to),
	})
	copy(b[header.IPv6MinimumSize:], SYN(from, to, 80))
	return frame(GatewayMAC, GuestMAC, 0x86dd, b)
}

// Neighbour is a frame that asks for the station of an address.
func Neighbour(sender, target string, from net.HardwareAddr) []byte {
	a := header.ARP(make([]byte, header.ARPSize))
	a.SetIPv4OverEthernet()
	a.SetOp(header.ARPRequest)
	copy(a.HardwareAddressSender(), from)
	copy(a.ProtocolAddressSender(), netip.MustParseAddr(sender).AsSlice())
	copy(a.ProtocolAddressTarget(), netip.MustParseAddr(target).AsSlice())
	return frame(broadcastMAC, GuestMAC, 0x0806, a)
}

// fragments splits a packet's payload at a place where that is allowed, a multiple
// of 8, and sends the end first.
func fragments(p Packet, at int) [][]byte {
	first, second := p, p
	first.ID, first.More, first.Payload = 77, true, p.Payload[:at]
	second.ID, second.Offset, second.Payload = 77, uint16(at), p.Payload[at:]
	return [][]byte{second.Frame(), first.Frame()}
}

// longSYN carries data, as it may, so that it can be split behind its header.
func longSYN(to string) Packet {
	s := header.TCP(append(SYN("10.77.0.2", to, 80), make([]byte, 20)...))
	return Packet{To: to, Protocol: 6, Payload: s}
}
