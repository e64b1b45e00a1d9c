package vnet

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"banger/internal/vnet/reach"
)

var (
	guestAddr   = netip.MustParseAddr("10.77.0.2")
	gatewayAddr = netip.MustParseAddr("10.77.0.1")
)

// world is the only way out of a test's network: it takes every address to a
// listener of the test, if that has one, and keeps what it was asked.
type world struct {
	mu    sync.Mutex
	at    map[string]string // "tcp 192.0.2.1:80" → a loopback address
	asked []string
}

func (w *world) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	w.asked = append(w.asked, network+" "+address)
	to, ok := w.at[network+" "+address]
	w.mu.Unlock()
	if !ok {
		return nil, syscall.ECONNREFUSED
	}
	var d net.Dialer
	return d.DialContext(ctx, network, to)
}

func (w *world) serve(network, address, to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at[network+" "+address] = to
}

func (w *world) dialled() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.asked...)
}

// listen is a TCP server of the test; handle gets every connection.
func listen(t testing.TB, handle func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go handle(c.(*net.TCPConn))
		}
	}()
	return l.Addr().String()
}

// echo sends back what it gets and ends when that ends.
func echo(c *net.TCPConn) {
	_, _ = io.Copy(c, c)
	c.Close()
}

func listenUDPEcho(t testing.TB) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 65536)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(b[:n], from)
		}
	}()
	return c.LocalAddr().String()
}

// machine is a guest: a stack of its own at the other end of the cable, which can
// also put any frame on it.
type machine struct {
	t       testing.TB
	stack   *stack.Stack
	cable   net.Conn
	framing reach.Framing
	sending sync.Mutex
	frames  chan []byte // copies of what arrives, as far as there is room
}

// attach joins a new guest to n by a pair of sockets, and ends it with the test.
func attach(t testing.TB, n *Network, f reach.Framing) *machine {
	t.Helper()
	kind := syscall.SOCK_STREAM
	if f == reach.Packets {
		kind = syscall.SOCK_SEQPACKET
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, kind, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := fileConn(t, pair[0]), fileConn(t, pair[1])
	m := &machine{t: t, cable: theirs, framing: f, frames: make(chan []byte, 1000)}
	served := make(chan error, 1)
	go func() { served <- n.Serve(t.Context(), ours, f) }()
	for n.attached() == false {
		time.Sleep(100 * time.Microsecond)
	}
	pumps := m.boot(uint32(n.config.MTU))
	t.Cleanup(func() {
		theirs.Close()
		<-served
		pumps()
	})
	return m
}

func (n *Network) attached() bool {
	n.link.mu.Lock()
	defer n.link.mu.Unlock()
	return n.link.attached
}

func fileConn(t testing.TB, fd int) net.Conn {
	f := os.NewFile(uintptr(fd), "cable")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (m *machine) boot(mtu uint32) (wait func()) {
	end := channel.New(4096, mtu+ethernetSize, tcpip.LinkAddress(reach.GuestMAC))
	m.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{arp.NewProtocol, ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	sack := tcpip.TCPSACKEnabled(true)
	m.must(m.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sack))
	m.must(m.stack.CreateNIC(1, ethernet.New(end)))
	m.must(m.stack.AddProtocolAddress(1, tcpip.ProtocolAddress{
		Protocol:          ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: toTCPIP(guestAddr), PrefixLen: 32},
	}, stack.AddressProperties{}))
	m.stack.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, Gateway: toTCPIP(gatewayAddr), NIC: 1}})

	ctx, cancel := context.WithCancel(context.Background())
	var pumps sync.WaitGroup
	pumps.Go(func() {
		for pkt := end.ReadContext(ctx); pkt != nil; pkt = end.ReadContext(ctx) {
			frame := pkt.ToView().AsSlice()
			pkt.DecRef()
			m.send(frame)
		}
	})
	pumps.Go(func() {
		_ = readFrames(m.cable, m.framing, func(frame []byte) {
			select {
			case m.frames <- append([]byte(nil), frame...):
			default:
			}
			pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
			end.InjectInbound(0, pkt)
			pkt.DecRef()
		})
	})
	return func() {
		cancel()
		pumps.Wait()
		m.stack.Destroy()
	}
}

func (m *machine) must(err tcpip.Error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// send puts a frame on the cable.
func (m *machine) send(frame []byte) {
	m.sending.Lock()
	defer m.sending.Unlock()
	if m.framing == reach.Stream {
		frame = append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)
	}
	_, _ = m.cable.Write(frame) // of a network that is closed: the test sees it elsewhere
}

func full(address string) tcpip.FullAddress {
	a := netip.MustParseAddrPort(address)
	return tcpip.FullAddress{Addr: toTCPIP(a.Addr()), Port: a.Port()}
}

const patience = time.Minute

func (m *machine) dial(address string) (*gonet.TCPConn, error) {
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	return gonet.DialContextTCP(ctx, m.stack, full(address), ipv4.ProtocolNumber)
}

func (m *machine) mustDial(address string) *gonet.TCPConn {
	m.t.Helper()
	c, err := m.dial(address)
	if err != nil {
		m.t.Fatalf("%s: %v", address, err)
	}
	m.t.Cleanup(func() { c.Close() })
	return c
}

func (m *machine) dialUDP(address string) *gonet.UDPConn {
	m.t.Helper()
	to := full(address)
	c, err := gonet.DialUDP(m.stack, nil, &to, ipv4.ProtocolNumber)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { c.Close() })
	return c
}

// tries says whether what is sent comes back.
func echoes(c net.Conn, text string) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := c.Write([]byte(text)); err != nil {
		return err
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if string(b) != text {
		return errors.New("something else came back")
	}
	return nil
}

// lab is a network with its guest and the world behind it.
type lab struct {
	*machine
	network *Network
	world   *world
	zone    *zone
	clock   *tick
}

func newLab(t testing.TB, p *reach.Policy, change ...func(*Config)) *lab {
	t.Helper()
	l := &lab{world: &world{at: map[string]string{}}, zone: &zone{answers: testZone}, clock: newTick()}
	c := Config{
		Guest: guestAddr, Gateway: gatewayAddr, Ground: ground, Policy: p,
		Dialer: l.world, Resolver: l.zone, Now: l.clock.now,
	}
	for _, f := range change {
		f(&c)
	}
	n, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	l.network = n
	l.machine = attach(t, n, reach.Stream)
	return l
}

// listenInGuest is an echo server in the guest, which says who came.
func (m *machine) listenInGuest(t testing.TB, port uint16) <-chan string {
	t.Helper()
	l, err := gonet.ListenTCP(m.stack, tcpip.FullAddress{Port: port}, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	came := make(chan string, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			came <- c.RemoteAddr().String()
			go func() {
				_, _ = io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	return came
}

// wait reads what arrived until there is a frame like that.
func (m *machine) wait(t testing.TB, what string, is func(frame []byte) bool) []byte {
	t.Helper()
	end := time.After(patience)
	for {
		select {
		case frame := <-m.frames:
			if len(frame) > 42 && is(frame) {
				return frame
			}
		case <-end:
			t.Fatalf("not so: %s", what)
		}
	}
}

// mustBeUnreachable sends a datagram and waits to be told that nobody takes it.
func (m *machine) mustBeUnreachable(t testing.TB, c net.Conn) {
	t.Helper()
	for len(m.frames) > 0 {
		<-m.frames
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	m.wait(t, "the port is said to be unreachable", func(frame []byte) bool {
		return frame[23] == 1 && frame[34] == 3 && frame[35] == 3
	})
}
