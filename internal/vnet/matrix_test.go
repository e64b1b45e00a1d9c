package vnet

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// mirror is a pinger whose world answers everything.
type mirror struct{ *world }

func pinging(c *Config) { c.Pinger = mirror{c.Dialer.(*world)} }

func (m mirror) Ping(_ context.Context, to netip.Addr, data []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, "icmp "+to.String())
	return data, nil
}

var (
	broadcastMAC = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	multicastMAC = net.HardwareAddr{0x01, 0x00, 0x5e, 0, 0, 0xfb}
	otherMAC     = net.HardwareAddr{0x52, 0x54, 0, 1, 2, 3}
)

func frame(to, from net.HardwareAddr, kind uint16, payload []byte) []byte {
	f := append(append([]byte{}, to...), from...)
	return append(append(f, byte(kind>>8), byte(kind)), payload...)
}

// packet is what a guest's raw socket can make: any addresses and any payload.
type packet struct {
	from, to       string
	protocol       uint8
	id, offset     uint16
	more           bool
	options        []byte
	payload        []byte
	toMAC, fromMAC net.HardwareAddr
}

func (p packet) frame() []byte {
	options := header.IPv4OptionsSerializer{}
	b := make([]byte, header.IPv4MinimumSize+len(p.options)+len(p.payload))
	h := header.IPv4(b)
	flags := uint8(0)
	if p.more {
		flags = header.IPv4FlagMoreFragments
	}
	h.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(b)), ID: p.id, TTL: 64, Protocol: p.protocol, Flags: flags, FragmentOffset: p.offset, Options: options,
		SrcAddr: toTCPIP(netip.MustParseAddr(orDefault(p.from, guestAddr.String()))), DstAddr: toTCPIP(netip.MustParseAddr(p.to)),
	})
	if len(p.options) > 0 {
		b[0] = 0x40 | byte((header.IPv4MinimumSize+len(p.options))/4)
		copy(b[header.IPv4MinimumSize:], p.options)
	}
	copy(b[header.IPv4MinimumSize+len(p.options):], p.payload)
	h.SetChecksum(0)
	h.SetChecksum(^h.CalculateChecksum())
	toMAC, fromMAC := GatewayMAC, GuestMAC
	if p.toMAC != nil {
		toMAC = p.toMAC
	}
	if p.fromMAC != nil {
		fromMAC = p.fromMAC
	}
	return frame(toMAC, fromMAC, 0x0800, b)
}

func syn(from, to string, port uint16) []byte {
	s := header.TCP(make([]byte, header.TCPMinimumSize))
	s.Encode(&header.TCPFields{SrcPort: 40000, DstPort: port, SeqNum: 7, DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagSyn, WindowSize: 60000})
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, toTCPIP(netip.MustParseAddr(from)), toTCPIP(netip.MustParseAddr(to)), uint16(len(s)))
	s.SetChecksum(^s.CalculateChecksum(sum))
	return s
}

func rawSYN(to string, port uint16, change ...func(*packet)) []byte {
	p := packet{to: to, protocol: 6, payload: syn(guestAddr.String(), to, port)}
	for _, f := range change {
		f(&p)
	}
	return p.frame()
}

func datagram(port uint16, data string) []byte {
	u := header.UDP(make([]byte, header.UDPMinimumSize+len(data)))
	u.Encode(&header.UDPFields{SrcPort: 40000, DstPort: port, Length: uint16(len(u))}) // no sum: there need be none
	copy(u.Payload(), data)
	return u
}

func ping(to, data string) []byte {
	e := header.ICMPv4(append(make([]byte, header.ICMPv4MinimumSize), data...))
	e.SetType(header.ICMPv4Echo)
	e.SetIdent(9)
	e.SetChecksum(^checksum.Checksum(e, 0))
	return packet{to: to, protocol: 1, payload: e}.frame()
}

func sixth(to string) []byte {
	b := make([]byte, header.IPv6MinimumSize+header.TCPMinimumSize)
	from := netip.MustParseAddr("fe80::2")
	header.IPv6(b).Encode(&header.IPv6Fields{
		PayloadLength: header.TCPMinimumSize, TransportProtocol: 6, HopLimit: 64, SrcAddr: toTCPIP(from), DstAddr: toTCPIP(netip.MustParseAddr(to)),
	})
	copy(b[header.IPv6MinimumSize:], syn(from.String(), to, 80))
	return frame(GatewayMAC, GuestMAC, 0x86dd, b)
}

func neighbour(sender, target netip.Addr, from net.HardwareAddr) []byte {
	a := header.ARP(make([]byte, header.ARPSize))
	a.SetIPv4OverEthernet()
	a.SetOp(header.ARPRequest)
	copy(a.HardwareAddressSender(), from)
	copy(a.ProtocolAddressSender(), sender.AsSlice())
	copy(a.ProtocolAddressTarget(), target.AsSlice())
	return frame(broadcastMAC, GuestMAC, 0x0806, a)
}

// since gives everything that left the network after so many connections and
// pings, and so many questions.
func (l *lab) since(connections, questions int) []string {
	all := l.world.dialled()[connections:]
	l.zone.mu.Lock()
	defer l.zone.mu.Unlock()
	for _, q := range l.zone.asked[questions:] {
		all = append(all, "dns "+q.Question[0].Name)
	}
	return all
}

func (l *lab) questions() int {
	l.zone.mu.Lock()
	defer l.zone.mu.Unlock()
	return len(l.zone.asked)
}

// technique is one way a guest may try to get out.
type technique struct {
	name    string
	prepare func(*testing.T, *lab) // under the mode, before anything is counted
	try     func(*testing.T, *lab)
	counter func(Counters) uint64
	out     string // what leaves where it passes
	passes  string // the modes in which it does, by their letters
}

func tcpTo(address string) func(*testing.T, *lab) {
	return func(t *testing.T, l *lab) {
		if c, err := l.dial(address); err == nil {
			c.Close()
		}
	}
}

func udpTo(address string) func(*testing.T, *lab) {
	return func(t *testing.T, l *lab) { _, _ = l.dialUDP(address).Write([]byte("x")) }
}

func raw(frames ...[]byte) func(*testing.T, *lab) {
	return func(t *testing.T, l *lab) {
		for _, f := range frames {
			l.send(f)
		}
	}
}

func question(network, name string, qtype uint16) func(*testing.T, *lab) {
	return func(t *testing.T, l *lab) { l.resolve(t, network, name, qtype) }
}

func refusedTCP(c Counters) uint64  { return c.RefusedTCP }
func refusedUDP(c Counters) uint64  { return c.RefusedUDP }
func refusedICMP(c Counters) uint64 { return c.RefusedICMP }
func refusedDNS(c Counters) uint64  { return c.DNSRefused }
func ipv6(c Counters) uint64        { return c.IPv6 }
func spoofed(c Counters) uint64     { return c.Spoofed }
func broadcast(c Counters) uint64   { return c.Broadcast }
func stray(c Counters) uint64       { return c.Stray }
func martian(c Counters) uint64     { return c.Martian }
func malformed(c Counters) uint64   { return c.Malformed }
func other(c Counters) uint64       { return c.OtherProtocol }

// fragments splits a packet's payload at a place where that is allowed, a multiple
// of 8, and sends the end first.
func fragments(p packet, at int) [][]byte {
	first, second := p, p
	first.id, first.more, first.payload = 77, true, p.payload[:at]
	second.id, second.offset, second.payload = 77, uint16(at), p.payload[at:]
	return [][]byte{second.frame(), first.frame()}
}

// longSYN carries data, as it may, so that it can be split behind its header.
func longSYN(to string) packet {
	s := header.TCP(append(syn("10.77.0.2", to, 80), make([]byte, 20)...))
	return packet{to: to, protocol: 6, payload: s}
}

var exampleAsked = question("udp", "example.com", dns.TypeA)

var techniques = []technique{
	{"allowed name", exampleAsked, tcpTo("192.0.2.1:80"), refusedTCP, "tcp 192.0.2.1:80", "an"},
	{"raw IP of the same service", nil, tcpTo("192.0.2.1:80"), refusedTCP, "tcp 192.0.2.1:80", "n"},
	{"raw IP", nil, tcpTo("192.0.2.9:80"), refusedTCP, "tcp 192.0.2.9:80", "n"},
	{"raw socket SYN", nil, raw(rawSYN("192.0.2.9", 80)), refusedTCP, "tcp 192.0.2.9:80", "n"},
	{"other port", exampleAsked, tcpTo("192.0.2.1:81"), refusedTCP, "tcp 192.0.2.1:81", "n"},
	{"QUIC to an allowed name's other port", exampleAsked, udpTo("192.0.2.1:443"), refusedUDP, "udp 192.0.2.1:443", "n"},
	{"UDP to an allowed name and port", exampleAsked, udpTo("192.0.2.1:80"), refusedUDP, "udp 192.0.2.1:80", "an"},
	{"other resolver, UDP", nil, udpTo("198.51.100.53:53"), refusedUDP, "udp 198.51.100.53:53", "n"},
	{"other resolver, TCP", nil, tcpTo("198.51.100.53:53"), refusedTCP, "tcp 198.51.100.53:53", "n"},
	{"other resolver, TLS", nil, tcpTo("198.51.100.53:853"), refusedTCP, "tcp 198.51.100.53:853", "n"},
	{"name not allowed, UDP", nil, question("udp", "other.com", dns.TypeA), refusedDNS, "dns other.com.", "n"},
	{"name not allowed, TCP", nil, question("tcp", "other.com", dns.TypeA), refusedDNS, "dns other.com.", "n"},
	{"data in names", nil, question("udp", strings.Repeat("d", 60)+".tunnel.net", dns.TypeTXT), refusedDNS, "dns " + strings.Repeat("d", 60) + ".tunnel.net.", "n"},
	{"data below an allowed name", nil, question("udp", "data.example.com", dns.TypeTXT), refusedDNS, "dns data.example.com.", "n"},
	{"whole zone", nil, question("tcp", "example.com", dns.TypeAXFR), refusedDNS, "", ""},
	{"reverse names of the LAN", nil, question("udp", "1.1.168.192.in-addr.arpa", dns.TypePTR), refusedDNS, "", ""},
	{"name of another VM", nil, question("udp", "other.vm", dns.TypeA), refusedDNS, "", ""},
	{"ICMP data", nil, raw(ping("192.0.2.9", "data")), refusedICMP, "icmp 192.0.2.9", "n"},
	{"ICMP to the LAN", nil, raw(ping("10.9.9.9", "data")), refusedICMP, "", ""},
	{"redirect to the LAN", exampleAsked, tcpTo("10.9.9.9:80"), refusedTCP, "", ""},
	{"LAN address with a rule", nil, tcpTo("10.1.2.3:443"), refusedTCP, "tcp 10.1.2.3:443", "a"},
	{"its other port", nil, tcpTo("10.1.2.3:80"), refusedTCP, "", ""},
	{"metadata", nil, tcpTo("169.254.169.254:80"), refusedTCP, "", ""},
	{"carrier range", nil, udpTo("100.64.0.1:80"), refusedUDP, "", ""},
	{"rebinding with TTL 0, the answer", rebind("192.0.2.1"), func(t *testing.T, l *lab) {
		rebind("10.9.9.9")(t, l)
	}, func(c Counters) uint64 { return c.DNSFiltered + c.DNSRefused }, "dns rebind.com.", "an"},
	{"rebinding with TTL 0, the connection", func(t *testing.T, l *lab) {
		rebind("192.0.2.1")(t, l)
		rebind("10.9.9.9")(t, l)
	}, tcpTo("10.9.9.9:80"), refusedTCP, "", ""},
	{"stale answer after vm set", func(t *testing.T, l *lab) {
		mode := l.network.Policy()
		l.network.SetPolicy(mustPolicy(t, true))
		question("udp", "a.example.org", dns.TypeA)(t, l)
		l.network.SetPolicy(mode)
	}, tcpTo("192.0.2.9:80"), refusedTCP, "tcp 192.0.2.9:80", "n"},
	{"answer past its time", func(t *testing.T, l *lab) {
		exampleAsked(t, l)
		l.clock.pass(2 * maxTTL)
	}, tcpTo("192.0.2.1:80"), refusedTCP, "tcp 192.0.2.1:80", "n"},
	{"IPv6", nil, raw(sixth("2001:db8::1")), ipv6, "", ""},
	{"IPv6 multicast", nil, raw(frame(net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, GuestMAC, 0x86dd, make([]byte, 60))), ipv6, "", ""},
	{"IPv4-mapped IPv6", nil, raw(sixth("::ffff:192.0.2.9")), ipv6, "", ""},
	{"NAT64", nil, raw(sixth("64:ff9b::c000:209")), ipv6, "", ""},
	{"6to4 in protocol 41", nil, raw(packet{to: "192.0.2.9", protocol: 41, payload: make([]byte, 40)}.frame()), other, "", ""},
	{"GRE", nil, raw(packet{to: "192.0.2.9", protocol: 47, payload: make([]byte, 40)}.frame()), other, "", ""},
	{"VLAN tag", nil, raw(frame(GatewayMAC, GuestMAC, 0x8100, make([]byte, 60))), other, "", ""},
	{"spoofed source", nil, raw(rawSYN("192.0.2.1", 80, func(p *packet) { p.from = "10.77.0.3" })), spoofed, "", ""},
	{"source of the gateway", nil, raw(rawSYN("192.0.2.1", 80, func(p *packet) { p.from = "10.77.0.1" })), spoofed, "", ""},
	{"spoofed station", nil, raw(rawSYN("192.0.2.1", 80, func(p *packet) { p.fromMAC = otherMAC })), spoofed, "", ""},
	{"spoofed ARP", nil, raw(neighbour(gatewayAddr, gatewayAddr, GuestMAC)), spoofed, "", ""},
	{"another station", nil, raw(rawSYN("10.77.0.3", 80, func(p *packet) { p.toMAC = otherMAC })), stray, "", ""},
	{"broadcast", nil, raw(packet{to: "255.255.255.255", protocol: 17, payload: datagram(67, "x"), toMAC: broadcastMAC}.frame()), broadcast, "", ""},
	{"broadcast through the gateway", nil, raw(packet{to: "255.255.255.255", protocol: 17, payload: datagram(67, "x")}.frame()), broadcast, "", ""},
	{"unicast address to all stations", nil, raw(packet{to: "192.0.2.1", protocol: 17, payload: datagram(80, "x"), toMAC: broadcastMAC}.frame()), broadcast, "", ""},
	{"multicast", nil, raw(packet{to: "224.0.0.251", protocol: 17, payload: datagram(5353, "x"), toMAC: multicastMAC}.frame()), broadcast, "", ""},
	{"multicast through the gateway", nil, raw(packet{to: "239.1.2.3", protocol: 17, payload: datagram(1900, "x")}.frame()), broadcast, "", ""},
	{"loopback of the host", nil, raw(rawSYN("127.0.0.1", 80)), martian, "", ""},
	{"loopback address of another VM", nil, raw(rawSYN("127.77.0.3", 80)), martian, "", ""},
	{"address of no host", nil, raw(rawSYN("0.0.0.0", 80)), martian, "", ""},
	{"reserved address", nil, raw(rawSYN("240.0.0.1", 80)), martian, "", ""},
	{"the guest's own address", nil, raw(rawSYN("10.77.0.2", 80)), martian, "", ""},
	{"fragments, TCP", nil, raw(fragments(longSYN("192.0.2.9"), 24)...), refusedTCP, "tcp 192.0.2.9:80", "n"},
	{"fragments to the LAN, TCP", nil, raw(fragments(longSYN("10.9.9.9"), 24)...), refusedTCP, "", ""},
	{"fragments to the LAN, UDP", nil, raw(fragments(packet{to: "10.9.9.9", protocol: 17, payload: datagram(53, "longer than one")}, 8)...), refusedUDP, "", ""},
	{"fragments that part a header", nil, raw(fragments(longSYN("192.0.2.1"), 16)...), malformed, "", ""},
	{"fragments of a spoofed source", nil, raw(fragments(packet{from: "10.77.0.3", to: "192.0.2.1", protocol: 17, payload: datagram(80, "longer than one")}, 8)...), spoofed, "", ""},
	{"source route", nil, raw(rawSYN("192.0.2.1", 80, func(p *packet) { p.options = []byte{131, 7, 4, 10, 9, 9, 9, 0} })), malformed, "", ""},
	{"frame longer than it says", nil, raw(frame(GatewayMAC, GuestMAC, 0x0800, []byte{0x45, 0, 0xff, 0xff, 0, 0, 0, 0, 64, 6, 0, 0, 10, 77, 0, 2, 192, 0, 2, 1})), malformed, "", ""},
	{"frame of nothing", nil, raw([]byte{1, 2, 3}), malformed, "", ""},
	{"the gateway's SSH", nil, tcpTo("10.77.0.1:22"), refusedTCP, "", ""},
	{"the gateway's daemon", nil, tcpTo("10.77.0.1:42069"), refusedTCP, "", ""},
	{"the gateway by UDP", nil, udpTo("10.77.0.1:42069"), refusedUDP, "", ""},
	{"the host's port with a rule", nil, tcpTo("10.77.0.1:8080"), refusedTCP, "tcp 127.0.0.1:8080", "a"},
	{"another VM", nil, tcpTo("10.77.0.3:80"), refusedTCP, "", ""},
	{"another VM, UDP", nil, udpTo("10.77.0.3:80"), refusedUDP, "", ""},
	{"the host's public address", nil, tcpTo("203.0.113.7:80"), refusedTCP, "", ""},
	{"the host's LAN address", nil, tcpTo("192.168.1.5:22"), refusedTCP, "", ""},
	{"its neighbour", nil, tcpTo("203.0.113.8:80"), refusedTCP, "tcp 203.0.113.8:80", "n"},
}

// rebind has a name mean an address for no time at all, and asks for it.
func rebind(addr string) func(*testing.T, *lab) {
	return func(t *testing.T, l *lab) {
		l.zone.mu.Lock()
		l.zone.answers = map[string][]string{"rebind.com. A": {"rebind.com. 0 IN A " + addr}}
		l.zone.mu.Unlock()
		question("udp", "rebind.com", dns.TypeA)(t, l)
	}
}

// Every technique in every mode: it leaves where the table says and nowhere else,
// and where it does not, the counter of its kind shows that it was tried.
func TestTechniquesInEveryMode(t *testing.T) {
	list := []string{"example.com:80", "10.1.2.3:443", "host.vm:8080", "rebind.com"}
	modes := []struct {
		letter string
		policy *Policy
	}{{"0", mustPolicy(t, false)}, {"a", mustPolicy(t, false, list...)}, {"n", mustPolicy(t, true)}}
	var report strings.Builder
	for _, mode := range modes {
		l := newLab(t, mode.policy, pinging)
		zone := l.zone.answers
		for _, tech := range techniques {
			l.network.SetPolicy(mode.policy)
			l.zone.mu.Lock()
			l.zone.answers = zone
			l.zone.mu.Unlock()
			l.clock.pass(3 * maxTTL) // nothing is known of the technique before, and there is room to ask
			if tech.prepare != nil {
				tech.prepare(t, l)
			}
			connections, questions := len(l.world.dialled()), l.questions()
			counted := tech.counter(l.network.Counters())
			tech.try(t, l)
			var left []string
			var refused uint64
			eventually(t, tech.name+" left or was counted", func() bool {
				left, refused = l.since(connections, questions), tech.counter(l.network.Counters())-counted
				return len(left) > 0 || refused > 0
			})
			verdict := "refused"
			if len(left) > 0 {
				verdict = "out: " + strings.Join(left, ", ")
			}
			fmt.Fprintf(&report, "%-40s %-2s %-34s %d\n", tech.name, mode.letter, verdict, refused)
			want := strings.Contains(tech.passes, mode.letter)
			if want != (len(left) > 0) || want && left[0] != tech.out {
				t.Errorf("%s in mode %s: %s, counted %d", tech.name, mode.letter, verdict, refused)
			}
		}
		for _, out := range l.world.dialled() { // whatever came when
			if strings.Contains(out, " 10.9.") || strings.Contains(out, " 10.77.") || strings.Contains(out, "169.254") || strings.Contains(out, " 203.0.113.7") {
				t.Errorf("mode %s: %s", mode.letter, out)
			}
		}
	}
	t.Logf("technique, mode, verdict, counter\n%s", report.String())
}

func TestGatewayAnswersPings(t *testing.T) {
	l := newLab(t, mustPolicy(t, false))
	l.send(ping("10.77.0.1", "are you there"))
	got := l.wait(t, "the gateway answers", func(f []byte) bool { return f[23] == 1 && f[34] == 0 })
	if !strings.HasSuffix(string(got), "are you there") {
		t.Errorf("%x", got)
	}
}

func TestPingIsSentOnWhereAllowed(t *testing.T) {
	l := newLab(t, mustPolicy(t, false, "192.0.2.9", "192.0.2.8:80"), pinging)
	l.send(ping("192.0.2.8", "its port alone is allowed"))
	l.send(ping("192.0.2.9", "are you there"))
	got := l.wait(t, "a reply comes", func(f []byte) bool { return f[23] == 1 && f[34] == 0 })
	h := header.IPv4(got[ethernetSize:])
	if !h.IsValid(len(h)) || !h.IsChecksumValid() || fromTCPIP(h.SourceAddress()).String() != "192.0.2.9" ||
		checksum.Checksum(h.Payload(), 0) != 0xffff || header.ICMPv4(h.Payload()).Ident() != 9 || !strings.HasSuffix(string(got), "are you there") {
		t.Errorf("%x", got)
	}
	if out := l.world.dialled(); len(out) != 1 || l.network.Counters().RefusedICMP != 1 {
		t.Error(out)
	}
}

func TestOnlyTheGatewayHasANeighboursAddress(t *testing.T) {
	l := newLab(t, mustPolicy(t, true))
	for _, other := range []string{"10.77.0.2", "10.77.0.3", "192.168.1.5"} {
		l.send(neighbour(guestAddr, netip.MustParseAddr(other), GuestMAC))
	}
	l.send(neighbour(netip.IPv4Unspecified(), gatewayAddr, GuestMAC))
	reply := func(f []byte) bool { return f[12] == 8 && f[13] == 6 }
	select {
	case f := <-l.frames:
		a := header.ARP(f[ethernetSize:])
		if !reply(f) || a.Op() != header.ARPReply || string(a.HardwareAddressSender()) != string(GatewayMAC) || netip.AddrFrom4([4]byte(a.ProtocolAddressSender())) != gatewayAddr {
			t.Errorf("%x", f)
		}
	case <-time.After(patience):
		t.Error("no answer")
	}
	if n := len(l.frames); n != 0 {
		t.Errorf("%d more answers", n)
	}
}
