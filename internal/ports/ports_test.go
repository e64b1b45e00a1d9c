package ports

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger"
)

// guest is one whose servers are those of this host, at an address that stands
// for its own.
type guest struct {
	at       netip.Addr // its address; what is not there refuses
	inside   atomic.Int32
	networks atomic.Int32
}

func (g *guest) Dial(ctx context.Context, port uint16) (Conn, error) {
	g.networks.Add(1)
	return dialTCP(ctx, netip.AddrPortFrom(g.at, port))
}

func (g *guest) DialInside(ctx context.Context, address netip.AddrPort) (Conn, error) {
	g.inside.Add(1)
	return dialTCP(ctx, address)
}

func dialTCP(ctx context.Context, address netip.AddrPort) (Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// anAddress is one of the loopback's that nobody else uses.
func anAddress() netip.Addr {
	return netip.AddrFrom4([4]byte{127, byte(200 + rand.IntN(50)), byte(rand.IntN(256)), byte(1 + rand.IntN(254))})
}

func open(t *testing.T, g *guest, published ...banger.Publish) *Ports {
	t.Helper()
	p, err := Open(Config{
		Address: anAddress(), GuestIP: netip.MustParseAddr("10.77.0.2"), Guest: g, Published: published,
		Log: slog.New(slog.DiscardHandler), Count: func(int) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// server is what listens in the guest.
type server struct {
	*net.TCPListener
	port uint16
}

func serve(t *testing.T, at netip.Addr) server {
	t.Helper()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return server{l, l.Addr().(*net.TCPAddr).AddrPort().Port()}
}

func (s server) listens(address string) Listener {
	return Listener{Address: netip.AddrPortFrom(netip.MustParseAddr(address), s.port), PID: 7, Process: "server"}
}

func (s server) accept(t *testing.T) *net.TCPConn {
	t.Helper()
	c, err := s.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func connect(t *testing.T, address netip.Addr, port uint16) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", netip.AddrPortFrom(address, port).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

var home = netip.MustParseAddr("127.0.0.1")

// through is a connection through a forwarded port, and its end in the guest.
func through(t *testing.T) (host, inGuest *net.TCPConn, p *Ports) {
	t.Helper()
	s := serve(t, home)
	p = open(t, &guest{at: home})
	p.Update([]Listener{s.listens("0.0.0.0")})
	return connect(t, p.config.Address, s.port), s.accept(t), p
}

func TestListenersAreReachedByTheWayThatLeadsThere(t *testing.T) {
	elsewhere := anAddress()
	for name, c := range map[string]struct {
		listens          string
		server           netip.Addr
		networks, inside int32
	}{
		"on all addresses":           {"0.0.0.0", home, 1, 0},
		"on all of both families":    {"::", home, 1, 0},
		"on its own":                 {"10.77.0.2", home, 1, 0},
		"on loopback alone":          {"127.0.0.1", home, 0, 1},
		"on IPv6 loopback alone":     {"::1", netip.IPv6Loopback(), 0, 1},
		"on another of its networks": {elsewhere.String(), elsewhere, 0, 1},
		"on all of IPv6 alone":       {"::", netip.IPv6Loopback(), 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			g := &guest{at: home}
			s := serve(t, c.server)
			p := open(t, g)
			p.Update([]Listener{s.listens(c.listens)})
			host := connect(t, p.config.Address, s.port)
			_, _ = host.Write([]byte("x"))
			if b := make([]byte, 1); true {
				if _, err := io.ReadFull(s.accept(t), b); err != nil || b[0] != 'x' {
					t.Fatalf("the guest got %q, %v", b, err)
				}
			}
			if n, i := g.networks.Load(), g.inside.Load(); n != c.networks || i != c.inside {
				t.Errorf("tried %d times by network, %d from inside", n, i)
			}
		})
	}
}

func TestPortGoesWithItsListener(t *testing.T) {
	host, inGuest, p := through(t)
	port := uint16(host.RemoteAddr().(*net.TCPAddr).Port)
	p.Update(nil)
	if _, err := net.Dial("tcp", host.RemoteAddr().String()); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a port that is gone gives %v", err)
	}
	// What is connected goes on.
	_, _ = host.Write([]byte("x"))
	if _, err := io.ReadFull(inGuest, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	if list := p.List(); len(list) != 0 {
		t.Errorf("%v is left of port %d", list, port)
	}
	p.Lost()
	if _, err := host.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("a connection to a guest that is gone gives %v", err)
	}
}

func TestEachHalfEndsByItself(t *testing.T) {
	for name, hostFirst := range map[string]bool{"the host's first": true, "the guest's first": false} {
		t.Run(name, func(t *testing.T) {
			first, second, _ := through(t)
			if !hostFirst {
				first, second = second, first
			}
			_, _ = first.Write([]byte("question"))
			_ = first.CloseWrite()
			if got, err := io.ReadAll(second); err != nil || string(got) != "question" {
				t.Fatalf("got %q, %v", got, err)
			}
			_, _ = second.Write([]byte("answer"))
			_ = second.Close()
			if got, err := io.ReadAll(first); err != nil || string(got) != "answer" {
				t.Fatalf("got %q, %v", got, err)
			}
		})
	}
}

func TestBreakIsPassedOn(t *testing.T) {
	for name, hostBreaks := range map[string]bool{"by the host": true, "by the guest": false} {
		t.Run(name, func(t *testing.T) {
			breaks, sees, _ := through(t)
			if !hostBreaks {
				breaks, sees = sees, breaks
			}
			_, _ = breaks.Write([]byte("x"))
			_, _ = io.ReadFull(sees, make([]byte, 1)) // it goes both ways by now
			_ = breaks.SetLinger(0)
			_ = breaks.Close()
			for { // the break is seen by reading or by writing
				if _, err := sees.Write(make([]byte, 1<<10)); err != nil {
					return
				}
			}
		})
	}
}

func TestNobodyInTheGuestBreaksTheConnection(t *testing.T) {
	s := serve(t, home)
	_ = s.Close()
	p := open(t, &guest{at: home})
	p.Update([]Listener{s.listens("0.0.0.0")})
	if err := tryToRead(p.config.Address, s.port); !errors.Is(err, unix.ECONNRESET) {
		t.Fatalf("got %v", err)
	}
}

// tryToRead says what a connection that is not wanted comes to, which may be so
// fast that it never seems to have been made.
func tryToRead(address netip.Addr, port uint16) error {
	c, err := net.Dial("tcp", netip.AddrPortFrom(address, port).String())
	if err == nil {
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	return err
}

func TestMuchGoesBothWaysAtOnce(t *testing.T) {
	host, inGuest, _ := through(t)
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	for _, c := range []*net.TCPConn{host, inGuest} {
		go func() {
			_, _ = c.Write(want)
			_ = c.CloseWrite()
		}()
	}
	there := make(chan []byte)
	go func() { b, _ := io.ReadAll(inGuest); there <- b }()
	here, err := io.ReadAll(host)
	if err != nil || !bytes.Equal(here, want) || !bytes.Equal(<-there, want) {
		t.Fatalf("got %d bytes, %v", len(here), err)
	}
}

func TestReaderThatStandsStillDelaysNobody(t *testing.T) {
	s := serve(t, home)
	p := open(t, &guest{at: home})
	p.Update([]Listener{s.listens("0.0.0.0")})
	slow := connect(t, p.config.Address, s.port)
	toSlow := s.accept(t)
	stuck := make(chan error, 1)
	go func() {
		_, err := toSlow.Write(make([]byte, 64<<20))
		stuck <- err
	}()
	_, _ = slow.Read(make([]byte, 1))
	quick := connect(t, p.config.Address, s.port)
	toQuick := s.accept(t)
	_, _ = toQuick.Write([]byte("x"))
	if _, err := io.ReadFull(quick, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-stuck:
		t.Fatalf("64 MiB that nobody read were taken: %v", err)
	default:
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	s := serve(t, home)
	p := open(t, &guest{at: home})
	p.Update([]Listener{s.listens("0.0.0.0")})
	go func() {
		for {
			c, err := s.AcceptTCP()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = c.Close() })
			_, _ = c.Write([]byte("x"))
		}
	}()
	conns := make([]*net.TCPConn, maxConns)
	for i := range conns {
		conns[i] = connect(t, p.config.Address, s.port)
		if _, err := conns[i].Read(make([]byte, 1)); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	if err := tryToRead(p.config.Address, s.port); !errors.Is(err, unix.ECONNRESET) {
		t.Fatalf("one too many gives %v", err)
	}
	p.Lost()
	for i, c := range conns {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Fatalf("connection %d gives %v", i, err)
		}
	}
}

func TestTakenPortIsListedAndTriedAgain(t *testing.T) {
	s := serve(t, home)
	p := open(t, &guest{at: home})
	taken, err := net.Listen("tcp", netip.AddrPortFrom(p.config.Address, s.port).String())
	if err != nil {
		t.Fatal(err)
	}
	p.Update([]Listener{s.listens("0.0.0.0")})
	if list := p.List(); len(list) != 1 || list[0].URL != "" || !strings.Contains(list[0].Reason, "is taken") {
		t.Errorf("got %+v", list)
	}
	_ = taken.Close()
	list := p.List()
	if len(list) != 1 || list[0].Reason != "" || list[0].URL != "http://"+taken.Addr().String() || list[0].Process != "server" || list[0].PID != 7 {
		t.Fatalf("got %+v", list)
	}
	connect(t, p.config.Address, s.port)
	s.accept(t)
}

func TestPublishedPortsStayWhateverTheGuestDoes(t *testing.T) {
	s := serve(t, home)
	host := anAddress() // where nobody takes the port meanwhile
	free := serve(t, host)
	_ = free.Close()
	p := open(t, &guest{at: home}, banger.Publish{Host: netip.AddrPortFrom(host, free.port), Guest: s.port})
	url := "http://" + free.Addr().String()
	if list := p.List(); len(list) != 1 || !slices.Equal(list[0].Published, []string{url}) || !strings.HasPrefix(list[0].Address, "*:") {
		t.Errorf("got %+v", list)
	}
	for range 2 { // before and after it is known to listen
		connect(t, host, free.port)
		s.accept(t)
		p.Update([]Listener{s.listens("0.0.0.0"), s.listens("::")})
	}
	if list := p.List(); len(list) != 2 || !slices.Equal(list[0].Published, []string{url}) || list[0].URL == "" {
		t.Errorf("got %+v", list)
	}
	p.Lost()
	connect(t, host, free.port)
	s.accept(t)
	_, err := Open(Config{Published: []banger.Publish{{Host: netip.AddrPortFrom(host, free.port), Guest: 80}}})
	if banger.CodeOf(err) != banger.Conflict || len(banger.HintsOf(err)) == 0 {
		t.Errorf("a taken port gives %v", err)
	}
	if err := CheckPublish(banger.Publish{Host: netip.AddrPortFrom(host, free.port)}); banger.CodeOf(err) != banger.Conflict {
		t.Errorf("a taken port is checked to be %v", err)
	}
	p.Close()
	if err := CheckPublish(banger.Publish{Host: netip.AddrPortFrom(host, free.port)}); err != nil {
		t.Error(err)
	}
}

func TestWhatIsNotForwardedSaysWhatWouldDoIt(t *testing.T) {
	at := netip.MustParseAddrPort("127.77.0.2:80")
	for err, says := range map[error]string{
		syscall.EACCES: "-p 8080:80", syscall.EADDRINUSE: "127.77.0.2:80 of this host is taken", errTooMany: "more ports",
	} {
		if got := whyNot(at, &net.OpError{Err: err}); !strings.Contains(got, says) {
			t.Errorf("%v: %s", err, got)
		}
	}
	err := cannotPublish(banger.Publish{Host: at, Guest: 80}, syscall.EACCES)
	if banger.CodeOf(err) != banger.Unauthorized || !slices.Contains(banger.HintsOf(err), "choose another, for example -p 8080:80") {
		t.Errorf("got %v with %q", err, banger.HintsOf(err))
	}
}

func TestPortThatWasTakenIsTriedAgainByItself(t *testing.T) {
	g := &guest{at: anAddress()}
	p := open(t, g)
	s := serve(t, g.at)
	at := netip.AddrPortFrom(p.config.Address, s.port)
	taken, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	p.Update([]Listener{{Address: netip.AddrPortFrom(g.at, s.port)}})
	_ = taken.Close()
	for deadline := time.Now().Add(time.Minute); ; {
		conn, err := net.Dial("tcp", at.String())
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// Ports below 1024 of the host are nobody's: all of them fail, and take no room.
func TestPortsThatCannotBeHadTakeNoRoom(t *testing.T) {
	g := &guest{at: anAddress()}
	p := open(t, g)
	s := serve(t, g.at)
	p.mu.Lock()
	for port := range uint16(maxDoors) {
		p.forwards[port+1] = &door{guest: port + 1, failure: unix.EACCES}
		p.listeners = append(p.listeners, Listener{Address: netip.AddrPortFrom(p.config.GuestIP, port+1)})
	}
	p.mu.Unlock()
	at := netip.AddrPortFrom(p.config.Address, s.port)
	p.Update(append(p.listeners, Listener{Address: netip.AddrPortFrom(p.config.GuestIP, at.Port())}))
	conn, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}
