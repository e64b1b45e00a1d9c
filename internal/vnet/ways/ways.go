// Package ways lists the ways out of a VM that are tried in tests: what a guest
// does, in which modes something leaves by it, and what counts where nothing does.
// The stack's own tests and those with real guests go by the same list.
//
// It knows nothing of how a step is done.
package ways

import (
	"net"
	"strings"
)

// Where everybody is. Guest and Gateway are those of the first VM of an
// installation, and their stations those of every VM.
const (
	guest   = "10.77.0.2"
	gateway = "10.77.0.1"
)

// The stations on the cable.
var (
	GuestMAC   = net.HardwareAddr{0x52, 0x54, 0x00, 0x62, 0x67, 0x02}
	GatewayMAC = net.HardwareAddr{0x52, 0x54, 0x00, 0x62, 0x67, 0x01}
)

// Rules are the allow list of the mode "a". In "0" nothing is allowed, and in "n"
// the internet.
var Rules = []string{"example.com:80", "10.1.2.3:443", "host.vm:8080", "rebind.com"}

// Own are addresses of the host's interfaces.
var Own = []string{"203.0.113.7", "192.168.1.5"}

// Names are what names mean to the world's resolver; rebind.com means what Mean
// says last, for no time at all.
var Names = map[string]string{"example.com": "192.0.2.1", "a.example.org": "192.0.2.9"}

// What a step does.
const (
	TCP        = "tcp"     // connects to To
	UDP        = "udp"     // sends a datagram to To
	AskUDP     = "ask udp" // asks the gateway for the Type of To
	AskTCP     = "ask tcp"
	Frame      = "frame"       // puts Frame on the cable
	Mean       = "mean"        // has rebind.com mean To
	OpenAll    = "open all"    // allows the internet
	CloseAgain = "close again" // goes back to the mode
	Later      = "later"       // lets all answers grow old
)

// Step is one thing that happens. All but Mean, OpenAll, CloseAgain and Later the
// guest does.
type Step struct {
	Do    string `json:"do"`
	To    string `json:"to,omitempty"`
	Type  uint16 `json:"type,omitempty"`
	Frame []byte `json:"frame,omitempty"`
}

// Way is one way a guest may try to get out.
type Way struct {
	Name    string
	First   []Step   // under the mode, before anything is counted
	Then    []Step   // the try
	Counter []string // of those that count where it is refused, by their JSON names
	Out     string   // what leaves where it passes: "tcp ADDRESS:PORT", "icmp ADDRESS", "dns NAME."
	Passes  string   // the modes in which it does, by their letters
}

// Numbers of the types of questions.
const (
	typeA    = 1
	typePTR  = 12
	typeTXT  = 16
	typeAXFR = 252
)

func tcpTo(address string) []Step { return []Step{{Do: TCP, To: address}} }
func udpTo(address string) []Step { return []Step{{Do: UDP, To: address}} }

func raw(frames ...[]byte) (steps []Step) {
	for _, f := range frames {
		steps = append(steps, Step{Do: Frame, Frame: f})
	}
	return steps
}

func question(network, name string, kind uint16) []Step {
	return []Step{{Do: "ask " + network, To: name, Type: kind}}
}

var exampleAsked = question("udp", "example.com", typeA)

// rebind has a name mean an address, and asks for it.
func rebind(addr string) []Step {
	return []Step{{Do: Mean, To: addr}, {Do: AskUDP, To: "rebind.com", Type: typeA}}
}

// All is every way.
var All = []Way{
	{"allowed name", exampleAsked, tcpTo("192.0.2.1:80"), []string{"refused_tcp"}, "tcp 192.0.2.1:80", "an"},
	{"raw IP of the same service", nil, tcpTo("192.0.2.1:80"), []string{"refused_tcp"}, "tcp 192.0.2.1:80", "n"},
	{"raw IP", nil, tcpTo("192.0.2.9:80"), []string{"refused_tcp"}, "tcp 192.0.2.9:80", "n"},
	{"raw socket SYN", nil, raw(RawSYN("192.0.2.9", 80)), []string{"refused_tcp"}, "tcp 192.0.2.9:80", "n"},
	{"other port", exampleAsked, tcpTo("192.0.2.1:81"), []string{"refused_tcp"}, "tcp 192.0.2.1:81", "n"},
	{"QUIC to an allowed name's other port", exampleAsked, udpTo("192.0.2.1:443"), []string{"refused_udp"}, "udp 192.0.2.1:443", "n"},
	{"UDP to an allowed name and port", exampleAsked, udpTo("192.0.2.1:80"), []string{"refused_udp"}, "udp 192.0.2.1:80", "an"},
	{"other resolver, UDP", nil, udpTo("198.51.100.53:53"), []string{"refused_udp"}, "udp 198.51.100.53:53", "n"},
	{"other resolver, TCP", nil, tcpTo("198.51.100.53:53"), []string{"refused_tcp"}, "tcp 198.51.100.53:53", "n"},
	{"other resolver, TLS", nil, tcpTo("198.51.100.53:853"), []string{"refused_tcp"}, "tcp 198.51.100.53:853", "n"},
	{"name not allowed, UDP", nil, question("udp", "other.com", typeA), []string{"dns_refused"}, "dns other.com.", "n"},
	{"name not allowed, TCP", nil, question("tcp", "other.com", typeA), []string{"dns_refused"}, "dns other.com.", "n"},
	{"data in names", nil, question("udp", strings.Repeat("d", 60)+".tunnel.net", typeTXT), []string{"dns_refused"}, "dns " + strings.Repeat("d", 60) + ".tunnel.net.", "n"},
	{"data below an allowed name", nil, question("udp", "data.example.com", typeTXT), []string{"dns_refused"}, "dns data.example.com.", "n"},
	{"whole zone", nil, question("tcp", "example.com", typeAXFR), []string{"dns_refused"}, "", ""},
	{"reverse names of the LAN", nil, question("udp", "1.1.168.192.in-addr.arpa", typePTR), []string{"dns_refused"}, "", ""},
	{"name of another VM", nil, question("udp", "other.vm", typeA), []string{"dns_refused"}, "", ""},
	{"ICMP data", nil, raw(Ping("192.0.2.9", "data")), []string{"refused_icmp"}, "icmp 192.0.2.9", "n"},
	{"ICMP to the LAN", nil, raw(Ping("10.9.9.9", "data")), []string{"refused_icmp"}, "", ""},
	{"redirect to the LAN", exampleAsked, tcpTo("10.9.9.9:80"), []string{"refused_tcp"}, "", ""},
	{"LAN address with a rule", nil, tcpTo("10.1.2.3:443"), []string{"refused_tcp"}, "tcp 10.1.2.3:443", "a"},
	{"its other port", nil, tcpTo("10.1.2.3:80"), []string{"refused_tcp"}, "", ""},
	{"metadata", nil, tcpTo("169.254.169.254:80"), []string{"refused_tcp"}, "", ""},
	{"carrier range", nil, udpTo("100.64.0.1:80"), []string{"refused_udp"}, "", ""},
	{"rebinding with TTL 0, the answer", rebind("192.0.2.1"), rebind("10.9.9.9"), []string{"dns_filtered", "dns_refused"}, "dns rebind.com.", "an"},
	{"rebinding with TTL 0, the connection", append(rebind("192.0.2.1"), rebind("10.9.9.9")...), tcpTo("10.9.9.9:80"), []string{"refused_tcp"}, "", ""},
	{"stale answer after vm set", []Step{{Do: OpenAll}, {Do: AskUDP, To: "a.example.org", Type: typeA}, {Do: CloseAgain}}, tcpTo("192.0.2.9:80"), []string{"refused_tcp"}, "tcp 192.0.2.9:80", "n"},
	{"answer past its time", []Step{{Do: AskUDP, To: "example.com", Type: typeA}, {Do: Later}}, tcpTo("192.0.2.1:80"), []string{"refused_tcp"}, "tcp 192.0.2.1:80", "n"},
	{"IPv6", nil, raw(Sixth("2001:db8::1")), []string{"ipv6"}, "", ""},
	{"IPv6 multicast", nil, raw(frame(net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, GuestMAC, 0x86dd, make([]byte, 60))), []string{"ipv6"}, "", ""},
	{"IPv4-mapped IPv6", nil, raw(Sixth("::ffff:192.0.2.9")), []string{"ipv6"}, "", ""},
	{"NAT64", nil, raw(Sixth("64:ff9b::c000:209")), []string{"ipv6"}, "", ""},
	{"6to4 in protocol 41", nil, raw(Packet{To: "192.0.2.9", Protocol: 41, Payload: make([]byte, 40)}.Frame()), []string{"other_protocol"}, "", ""},
	{"GRE", nil, raw(Packet{To: "192.0.2.9", Protocol: 47, Payload: make([]byte, 40)}.Frame()), []string{"other_protocol"}, "", ""},
	{"VLAN tag", nil, raw(frame(GatewayMAC, GuestMAC, 0x8100, make([]byte, 60))), []string{"other_protocol"}, "", ""},
	{"spoofed source", nil, raw(RawSYN("192.0.2.1", 80, func(p *Packet) { p.From = "10.77.0.3" })), []string{"spoofed"}, "", ""},
	{"source of the gateway", nil, raw(RawSYN("192.0.2.1", 80, func(p *Packet) { p.From = "10.77.0.1" })), []string{"spoofed"}, "", ""},
	{"spoofed station", nil, raw(RawSYN("192.0.2.1", 80, func(p *Packet) { p.FromMAC = otherMAC })), []string{"spoofed"}, "", ""},
	{"spoofed ARP", nil, raw(Neighbour(gateway, gateway, GuestMAC)), []string{"spoofed"}, "", ""},
	{"another station", nil, raw(RawSYN("10.77.0.3", 80, func(p *Packet) { p.ToMAC = otherMAC })), []string{"stray"}, "", ""},
	{"broadcast", nil, raw(Packet{To: "255.255.255.255", Protocol: 17, Payload: Datagram(67, "x"), ToMAC: broadcastMAC}.Frame()), []string{"broadcast"}, "", ""},
	{"broadcast through the gateway", nil, raw(Packet{To: "255.255.255.255", Protocol: 17, Payload: Datagram(67, "x")}.Frame()), []string{"broadcast"}, "", ""},
	{"unicast address to all stations", nil, raw(Packet{To: "192.0.2.1", Protocol: 17, Payload: Datagram(80, "x"), ToMAC: broadcastMAC}.Frame()), []string{"broadcast"}, "", ""},
	{"multicast", nil, raw(Packet{To: "224.0.0.251", Protocol: 17, Payload: Datagram(5353, "x"), ToMAC: multicastMAC}.Frame()), []string{"broadcast"}, "", ""},
	{"multicast through the gateway", nil, raw(Packet{To: "239.1.2.3", Protocol: 17, Payload: Datagram(1900, "x")}.Frame()), []string{"broadcast"}, "", ""},
	{"loopback of the host", nil, raw(RawSYN("127.0.0.1", 80)), []string{"martian"}, "", ""},
	{"loopback address of another VM", nil, raw(RawSYN("127.77.0.3", 80)), []string{"martian"}, "", ""},
	{"address of no host", nil, raw(RawSYN("0.0.0.0", 80)), []string{"martian"}, "", ""},
	{"reserved address", nil, raw(RawSYN("240.0.0.1", 80)), []string{"martian"}, "", ""},
	{"the guest's own address", nil, raw(RawSYN("10.77.0.2", 80)), []string{"martian"}, "", ""},
	{"fragments, TCP", nil, raw(fragments(longSYN("192.0.2.9"), 24)...), []string{"refused_tcp"}, "tcp 192.0.2.9:80", "n"},
	{"fragments to the LAN, TCP", nil, raw(fragments(longSYN("10.9.9.9"), 24)...), []string{"refused_tcp"}, "", ""},
	{"fragments to the LAN, UDP", nil, raw(fragments(Packet{To: "10.9.9.9", Protocol: 17, Payload: Datagram(53, "longer than one")}, 8)...), []string{"refused_udp"}, "", ""},
	{"fragments that part a header", nil, raw(fragments(longSYN("192.0.2.1"), 16)...), []string{"malformed"}, "", ""},
	{"fragments of a spoofed source", nil, raw(fragments(Packet{From: "10.77.0.3", To: "192.0.2.1", Protocol: 17, Payload: Datagram(80, "longer than one")}, 8)...), []string{"spoofed"}, "", ""},
	{"source route", nil, raw(RawSYN("192.0.2.1", 80, func(p *Packet) { p.Options = []byte{131, 7, 4, 10, 9, 9, 9, 0} })), []string{"malformed"}, "", ""},
	{"frame longer than it says", nil, raw(frame(GatewayMAC, GuestMAC, 0x0800, []byte{0x45, 0, 0xff, 0xff, 0, 0, 0, 0, 64, 6, 0, 0, 10, 77, 0, 2, 192, 0, 2, 1})), []string{"malformed"}, "", ""},
	{"frame of nothing", nil, raw([]byte{1, 2, 3}), []string{"malformed"}, "", ""},
	{"the gateway's SSH", nil, tcpTo("10.77.0.1:22"), []string{"refused_tcp"}, "", ""},
	{"the gateway's daemon", nil, tcpTo("10.77.0.1:42069"), []string{"refused_tcp"}, "", ""},
	{"the gateway by UDP", nil, udpTo("10.77.0.1:42069"), []string{"refused_udp"}, "", ""},
	{"the host's port with a rule", nil, tcpTo("10.77.0.1:8080"), []string{"refused_tcp"}, "tcp 127.0.0.1:8080", "a"},
	{"another VM", nil, tcpTo("10.77.0.3:80"), []string{"refused_tcp"}, "", ""},
	{"another VM, UDP", nil, udpTo("10.77.0.3:80"), []string{"refused_udp"}, "", ""},
	{"the host's public address", nil, tcpTo("203.0.113.7:80"), []string{"refused_tcp"}, "", ""},
	{"the host's LAN address", nil, tcpTo("192.168.1.5:22"), []string{"refused_tcp"}, "", ""},
	{"its neighbour", nil, tcpTo("203.0.113.8:80"), []string{"refused_tcp"}, "tcp 203.0.113.8:80", "n"},
}
