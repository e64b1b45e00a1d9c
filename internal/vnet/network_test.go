package vnet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"banger/internal/vnet/reach"
	"banger/internal/vnet/ways"
)

func TestGuestReachesWhatThePolicyAllows(t *testing.T) {
	l := newLab(t, mustPolicy(t, true))
	l.world.serve("tcp", "192.0.2.1:80", listen(t, echo))
	c := l.mustDial("192.0.2.1:80")
	if err := echoes(c, "hello"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is recorded", func() bool {
		r := l.network.Records()
		return len(r) == 1 && r[0].Protocol == "tcp" && r[0].Addr.String() == "192.0.2.1" && r[0].Port == 80 &&
			r[0].Open == 1 && r[0].Sent == 5 && r[0].Received == 5
	})
}

func TestGuestIsRefusedAtOnce(t *testing.T) {
	l := newLab(t, mustPolicy(t, false))
	if _, err := l.dial("192.0.2.1:80"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Error(err)
	}
	if got := l.world.dialled(); len(got) != 0 {
		t.Error(got)
	}
	if got := l.network.Explain(time.Time{}); got != "network: refused 192.0.2.1:80 (--allow 192.0.2.1:80, or --nat)" {
		t.Error(got)
	}
}

// Where nobody listens in the world, the guest hears that and not silence.
func TestRefusalOfTheWorldIsPassedOn(t *testing.T) {
	l := newLab(t, mustPolicy(t, true))
	if _, err := l.dial("192.0.2.1:80"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Error(err)
	}
	eventually(t, "it is recorded", func() bool {
		r := l.network.Records()
		return len(r) == 1 && r[0].Failed == 1 && r[0].Open == 0 && r[0].Refused == 0
	})
}

func TestTrafficIsWhatHasTwoSides(t *testing.T) {
	l := newLab(t, mustPolicy(t, false, "192.0.2.1", "192.0.2.2", "example.com:80"))
	l.world.serve("tcp", "192.0.2.1:80", listen(t, echo))
	l.world.serve("udp", "192.0.2.1:443", listenUDPEcho(t))
	for _, nobody := range []string{"192.0.2.2:80", "192.0.2.3:80"} {
		if _, err := l.dial(nobody); err == nil {
			t.Fatal(nobody, " answers")
		}
	}
	l.mustBeUnreachable(t, l.dialUDP("192.0.2.3:443"))
	l.resolve(t, "udp", "example.com", dns.TypeA)
	if n := l.network.Traffic(); n != 0 {
		t.Errorf("what nobody answers, and names, are %d times traffic", n)
	}
	if err := echoes(l.mustDial("192.0.2.1:80"), "a"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a connection is traffic both ways", func() bool { return l.network.Traffic() == 2 })
	if err := echoes(l.dialUDP("192.0.2.1:443"), "a"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an answer to a datagram is traffic", func() bool { return l.network.Traffic() == 3 })
}

func TestStreamsArriveWhole(t *testing.T) {
	l := newLab(t, mustPolicy(t, true))
	const size = 16 << 20
	data := make([]byte, size)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(data)
	sums := make(chan [32]byte, 1)
	l.world.serve("tcp", "192.0.2.1:80", listen(t, func(c *net.TCPConn) {
		defer c.Close()
		got, _ := io.ReadAll(c) // until the guest has ended its half
		sums <- sha256.Sum256(got)
		_, _ = c.Write(data)
	}))
	c := l.mustDial("192.0.2.1:80")
	if _, err := io.Copy(c, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil || sha256.Sum256(got) != sha256.Sum256(data) || <-sums != sha256.Sum256(data) {
		t.Errorf("%d bytes back, %v", len(got), err)
	}
	eventually(t, "the record is closed", func() bool {
		r := l.network.Records()
		return len(r) == 1 && r[0].Open == 0 && r[0].Sent == size && r[0].Received == size
	})
}

// eventually waits for what the other end of a cable does in its own time.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so: %s", what)
		}
	}
}

func TestEndOfTheWorldsHalfReachesTheGuest(t *testing.T) {
	l := newLab(t, mustPolicy(t, true))
	late := make(chan string, 1)
	l.world.serve("tcp", "192.0.2.1:80", listen(t, func(c *net.TCPConn) {
		_ = c.CloseWrite()
		b, _ := io.ReadAll(c)
		late <- string(b)
		c.Close()
	}))
	c := l.mustDial("192.0.2.1:80")
	if b, err := io.ReadAll(c); err != nil || len(b) != 0 {
		t.Fatal(b, err)
	}
	if _, err := c.Write([]byte("still here")); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if got := <-late; got != "still here" {
		t.Error(got)
	}
}

func TestResetOfTheWorldReachesTheGuest(t *testing.T) {
	l := newLab(t, mustPolicy(t, true))
	l.world.serve("tcp", "192.0.2.1:80", listen(t, func(c *net.TCPConn) {
		b := make([]byte, 1)
		_, _ = c.Read(b)
		abort(c)
	}))
	c := l.mustDial("192.0.2.1:80")
	_, _ = c.Write([]byte("x"))
	if _, err := io.ReadAll(c); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Error(err)
	}
}

func TestResetOfTheGuestReachesTheWorld(t *testing.T) {
	l := newLab(t, mustPolicy(t, true))
	ended := make(chan error, 1)
	l.world.serve("tcp", "192.0.2.1:80", listen(t, func(c *net.TCPConn) {
		_, err := io.ReadAll(c)
		ended <- err
		c.Close()
	}))
	c := l.mustDial("192.0.2.1:80")
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	l.stack.Close() // every endpoint of the guest is aborted
	if err := <-ended; err == nil {
		t.Error("the world saw an ordinary end")
	}
}

func TestDatagramsGoBothWays(t *testing.T) {
	l := newLab(t, mustPolicy(t, true))
	l.world.serve("udp", "192.0.2.1:443", listenUDPEcho(t))
	c := l.dialUDP("192.0.2.1:443")
	for _, text := range []string{"a", strings.Repeat("b", 9000), "c"} { // the long one in fragments
		if err := echoes(c, text); err != nil {
			t.Fatalf("%d bytes: %v", len(text), err)
		}
	}
	eventually(t, "it is recorded", func() bool {
		r := l.network.Records()
		return len(r) == 1 && r[0].Sent == 9002 && r[0].Received == 9002 && r[0].Allowed == 1
	})
}

func TestQuietConversationEnds(t *testing.T) {
	l := newLab(t, mustPolicy(t, true), func(c *Config) { c.Limits.UDPIdle = 20 * time.Millisecond })
	l.world.serve("udp", "192.0.2.1:443", listenUDPEcho(t))
	c := l.dialUDP("192.0.2.1:443")
	// On a busy host a conversation may end before its answer has come.
	answered := func(text string) bool {
		_ = c.SetDeadline(time.Now().Add(time.Second))
		_, _ = c.Write([]byte(text))
		for b := make([]byte, 1); ; {
			if _, err := c.Read(b); err != nil || string(b) == text {
				return err == nil
			}
		}
	}
	eventually(t, "it is answered", func() bool { return answered("a") })
	eventually(t, "the conversation ended", func() bool { return l.network.Records()[0].Open == 0 })
	eventually(t, "a new one begins", func() bool { return answered("b") })
}

func TestRefusedDatagramIsUnreachable(t *testing.T) {
	l := newLab(t, mustPolicy(t, false))
	l.mustBeUnreachable(t, l.dialUDP("192.0.2.1:443"))
	if n := l.network.Counters().RefusedUDP; n != 1 {
		t.Error(n)
	}
}

// resolve asks the gateway as a guest's libc does.
func (l *lab) resolve(t *testing.T, network, name string, qtype uint16) *dns.Msg {
	t.Helper()
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	c := &dns.Conn{Conn: net.Conn(l.dialUDP("10.77.0.1:53"))}
	if network == "tcp" {
		c.Conn = l.mustDial("10.77.0.1:53")
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if network == "udp" { // dns.Conn tells datagrams by their type
		raw, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Conn.Write(raw); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 65536)
		n, err := c.Conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		reply := new(dns.Msg)
		if err := reply.Unpack(b[:n]); err != nil {
			t.Fatal(err)
		}
		return reply
	}
	raw, _ := q.Pack()
	if _, err := c.Conn.Write(append([]byte{byte(len(raw) >> 8), byte(len(raw))}, raw...)); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 2)
	if _, err := io.ReadFull(c.Conn, head); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, int(head[0])<<8|int(head[1]))
	if _, err := io.ReadFull(c.Conn, b); err != nil {
		t.Fatal(err)
	}
	reply := new(dns.Msg)
	if err := reply.Unpack(b); err != nil {
		t.Fatal(err)
	}
	return reply
}

func TestGatewayAnswersQuestions(t *testing.T) {
	l := newLab(t, mustPolicy(t, false, "example.com:80"))
	l.world.serve("tcp", "192.0.2.1:80", listen(t, echo))
	for _, network := range []string{"udp", "tcp"} {
		if got := said(l.resolve(t, network, "example.com", dns.TypeA)); got != "NOERROR 192.0.2.1 192.0.2.2" {
			t.Errorf("%s: %s", network, got)
		}
		if got := said(l.resolve(t, network, "example.net", dns.TypeA)); got != "REFUSED" {
			t.Errorf("%s: %s", network, got)
		}
	}
	if err := echoes(l.mustDial("192.0.2.1:80"), "by name"); err != nil {
		t.Error(err)
	}
	if r := l.network.Records(); r[0].Name != "example.com" || r[0].Allowed != 1 {
		t.Errorf("%+v", r[0])
	}
}

func TestLongAnswerIsCutForUDPAlone(t *testing.T) {
	l := newLab(t, mustPolicy(t, true))
	many := []string{}
	for i := range 80 {
		many = append(many, "many.com. 9 IN A 192.0.2."+string(rune('0'+i/10))+string(rune('0'+i%10)))
	}
	for i := range many {
		many[i] = strings.Replace(many[i], "192.0.2.0", "192.0.2.", 1)
	}
	l.zone.mu.Lock()
	l.zone.answers = map[string][]string{"many.com. A": many}
	l.zone.mu.Unlock()
	if m := l.resolve(t, "udp", "many.com", dns.TypeA); !m.Truncated || len(m.Answer) >= 80 {
		t.Errorf("%d answers, cut %v", len(m.Answer), m.Truncated)
	}
	if m := l.resolve(t, "tcp", "many.com", dns.TypeA); m.Truncated || len(m.Answer) != 80 {
		t.Errorf("%d answers, cut %v", len(m.Answer), m.Truncated)
	}
}

func TestHostIsReachedByItsNameAndPort(t *testing.T) {
	l := newLab(t, mustPolicy(t, false, "host.vm:8080"))
	l.world.serve("tcp", "127.0.0.1:8080", listen(t, echo))
	l.world.serve("udp", "127.0.0.1:8080", listenUDPEcho(t))
	if got := said(l.resolve(t, "udp", "host.vm", dns.TypeA)); got != "NOERROR 10.77.0.1" {
		t.Fatal(got)
	}
	if err := echoes(l.mustDial("10.77.0.1:8080"), "x"); err != nil {
		t.Error(err)
	}
	if err := echoes(l.dialUDP("10.77.0.1:8080"), "x"); err != nil {
		t.Error(err)
	}
	if got := l.network.Learn(); strings.Join(got, " ") != "host.vm:8080" {
		t.Error(got)
	}
}

func TestPolicyChangeEndsWhatItForbids(t *testing.T) {
	l := newLab(t, mustPolicy(t, true))
	ended := make(chan error, 2)
	hold := func(c *net.TCPConn) {
		_, err := io.Copy(c, c)
		ended <- err
	}
	l.world.serve("tcp", "192.0.2.1:80", listen(t, hold))
	l.world.serve("tcp", "192.0.2.9:80", listen(t, hold))
	l.world.serve("udp", "192.0.2.1:443", listenUDPEcho(t))
	l.resolve(t, "udp", "example.com", dns.TypeA)
	kept, cut, datagrams := l.mustDial("192.0.2.1:80"), l.mustDial("192.0.2.9:80"), l.dialUDP("192.0.2.1:443")
	for _, c := range []net.Conn{kept, cut, datagrams} {
		if err := echoes(c, "before"); err != nil {
			t.Fatal(err)
		}
	}
	l.clock.pass(2 * maxTTL) // what it was called is forgotten, but it was that when it began

	if n := l.network.SetPolicy(mustPolicy(t, false, "example.com:80")); n != 2 {
		t.Errorf("%d ended", n)
	}
	_ = cut.SetReadDeadline(time.Now().Add(patience))
	if _, err := cut.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("the guest saw %v", err)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the world saw an ordinary end")
		}
	case <-time.After(patience):
		t.Error("the world saw no end")
	}
	if err := echoes(kept, "after"); err != nil {
		t.Errorf("what is allowed was ended too: %v", err)
	}
	l.mustBeUnreachable(t, datagrams)
	if _, err := l.dial("192.0.2.9:80"); err == nil {
		t.Error("a new one began")
	}
	if n := l.network.Counters().Ended; n != 2 {
		t.Error(n)
	}
}

// A blocked writer must not keep a connection from its end.
func TestPolicyChangeEndsWhatStandsStill(t *testing.T) {
	l := newLab(t, mustPolicy(t, true))
	stalled := make(chan struct{})
	l.world.serve("tcp", "192.0.2.1:80", listen(t, func(c *net.TCPConn) {
		_, _ = io.Copy(c, zeroes{}) // the guest reads nothing of it
		close(stalled)
	}))
	c := l.mustDial("192.0.2.1:80")
	eventually(t, "nothing moves any more", func() bool {
		before := l.network.Records()[0].Received
		time.Sleep(20 * time.Millisecond)
		return before > 0 && before == l.network.Records()[0].Received
	})
	l.network.SetPolicy(nil)
	select {
	case <-stalled:
	case <-time.After(patience):
		t.Error("the world's side was not ended")
	}
	eventually(t, "the flow is gone", func() bool { return l.network.Records()[0].Open == 0 })
	c.Close()
}

type zeroes struct{}

func (zeroes) Read(b []byte) (int, error) { return len(b), nil }

func TestConnectionsAreLimited(t *testing.T) {
	l := newLab(t, mustPolicy(t, true), func(c *Config) { c.Limits.TCP, c.Limits.UDP = 2, 1 })
	l.world.serve("tcp", "192.0.2.1:80", listen(t, echo))
	l.world.serve("udp", "192.0.2.1:80", listenUDPEcho(t))
	first, second := l.mustDial("192.0.2.1:80"), l.mustDial("192.0.2.1:80")
	if _, err := l.dial("192.0.2.1:80"); err == nil {
		t.Error("a third was let through")
	}
	if err := echoes(l.dialUDP("192.0.2.1:80"), "x"); err != nil {
		t.Error(err)
	}
	l.mustBeUnreachable(t, l.dialUDP("192.0.2.1:80"))
	if n := l.network.Counters().OverLimit; n != 2 {
		t.Error(n)
	}
	first.Close()
	eventually(t, "there is room again", func() bool {
		c, err := l.dial("192.0.2.1:80")
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	if err := echoes(second, "x"); err != nil {
		t.Error(err)
	}
}

func TestPortOfTheGuestIsReached(t *testing.T) {
	l := newLab(t, mustPolicy(t, false)) // the way in is open in every mode
	served := l.listenInGuest(t, 8000)
	c, err := l.network.Dial(t.Context(), 8000)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := echoes(c, "inbound"); err != nil {
		t.Error(err)
	}
	if from := <-served; !strings.HasPrefix(from, "10.77.0.1:") {
		t.Errorf("it comes from %s", from)
	}
	if _, err := l.network.Dial(t.Context(), 8001); err == nil || !strings.Contains(err.Error(), "port 8001") {
		t.Error(err)
	}
}

func TestNewMachineAtTheSameNetwork(t *testing.T) {
	l := newLab(t, mustPolicy(t, true))
	l.world.serve("tcp", "192.0.2.1:80", listen(t, echo))
	if err := echoes(l.mustDial("192.0.2.1:80"), "x"); err != nil {
		t.Fatal(err)
	}
	if err := l.network.Serve(t.Context(), nopCable{}, reach.Stream); err == nil {
		t.Error("two guests at once")
	}
	l.cable.Close() // the machine is gone
	eventually(t, "its connections are gone", func() bool { return !l.network.attached() && l.network.Records()[0].Open == 0 })
	if _, err := l.network.Dial(t.Context(), 80); err == nil {
		t.Error("a guest that is not there was reached")
	}
	again := attach(t, l.network, reach.Packets)
	if err := echoes(again.mustDial("192.0.2.1:80"), "y"); err != nil {
		t.Error(err)
	}
}

type nopCable struct{}

func (nopCable) Read([]byte) (int, error)    { return 0, io.EOF }
func (nopCable) Write(b []byte) (int, error) { return len(b), nil }
func (nopCable) Close() error                { return nil }

func TestCloseEndsEverything(t *testing.T) {
	l := newLab(t, mustPolicy(t, true))
	l.world.serve("tcp", "192.0.2.1:80", listen(t, echo))
	l.world.serve("udp", "192.0.2.1:80", listenUDPEcho(t))
	c := l.mustDial("192.0.2.1:80")
	if err := echoes(c, "x"); err != nil {
		t.Fatal(err)
	}
	if err := echoes(l.dialUDP("192.0.2.1:80"), "x"); err != nil {
		t.Fatal(err)
	}
	if err := l.network.Close(); err != nil {
		t.Fatal(err)
	}
	for _, r := range l.network.Records() {
		if r.Open != 0 {
			t.Errorf("%+v", r)
		}
	}
	if err := l.network.Close(); err != nil {
		t.Error(err)
	}
}

// What is under way is limited apart from what stands: beyond it a guest gets no
// answer, and tries again.
func TestConnectionsUnderWayAreLimited(t *testing.T) {
	gate := make(chan struct{})
	l := newLab(t, mustPolicy(t, true), func(c *Config) {
		c.Limits.HalfOpen = 2
		c.Dialer = gated{c.Dialer, gate}
	})
	l.world.serve("tcp", "192.0.2.1:80", listen(t, echo))
	for port := range uint16(5) {
		s := header.TCP(ways.SYN("10.77.0.2", "192.0.2.1", 80))
		l.send(ways.Packet{To: "192.0.2.1", Protocol: 6, Payload: withSource(s, 41000+port)}.Frame())
	}
	eventually(t, "three are beyond the limit", func() bool { return l.network.Counters().HalfOpen == 3 })
	eventually(t, "two are under way", func() bool {
		r := l.network.Records()
		return len(r) == 1 && r[0].Open == 2
	})
	close(gate)
	if err := echoes(l.mustDial("192.0.2.1:80"), "x"); err != nil {
		t.Error(err)
	}
}

// withSource changes where a segment comes from; its sum is not looked at.
func withSource(s header.TCP, port uint16) []byte {
	s.SetSourcePort(port)
	return s
}

// gated reaches nobody before its gate is open.
type gated struct {
	Dialer
	gate chan struct{}
}

func (g gated) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	select {
	case <-g.gate:
		return g.Dialer.DialContext(ctx, network, address)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A change of the policy finds a connection that is still under way.
func TestPolicyChangeEndsWhatIsUnderWay(t *testing.T) {
	gate := make(chan struct{}) // never opened
	l := newLab(t, mustPolicy(t, true), func(c *Config) { c.Dialer = gated{c.Dialer, gate} })
	refused := make(chan error, 1)
	go func() {
		_, err := l.dial("192.0.2.1:80")
		refused <- err
	}()
	eventually(t, "it is under way", func() bool { return len(l.network.Records()) == 1 })
	if n := l.network.SetPolicy(nil); n != 1 {
		t.Error(n)
	}
	if err := <-refused; err == nil || !strings.Contains(err.Error(), "refused") {
		t.Error(err)
	}
}

// A flood of questions is answered up to the rate, and the network goes on.
func TestFloodOfQuestionsIsDropped(t *testing.T) {
	l := newLab(t, mustPolicy(t, false), func(c *Config) { c.Limits.DNSBurst = 10 })
	q, err := new(dns.Msg).SetQuestion("a.com.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	c := l.dialUDP("10.77.0.1:53")
	for range 60 {
		if _, err := c.Write(q); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "fifty were dropped", func() bool {
		n := l.network.Counters()
		return n.DNSQueries == 60 && n.DNSDropped == 50 && n.DNSRefused == 10
	})
	l.clock.pass(time.Second)
	if got := said(l.resolve(t, "udp", "b.com", dns.TypeA)); got != "REFUSED" {
		t.Error(got)
	}
}

// The name server of a guest holds few connections, whatever that guest opens.
func TestConnectionsToTheNameServerAreLimited(t *testing.T) {
	l := newLab(t, mustPolicy(t, false))
	var open []net.Conn
	for range dnsTCPConns {
		open = append(open, l.mustDial("10.77.0.1:53"))
	}
	eventually(t, "one more is closed at once", func() bool {
		c := l.mustDial("10.77.0.1:53")
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, err := c.Read(make([]byte, 1))
		return err == io.EOF
	})
	open[0].Close()
	eventually(t, "there is room again", func() bool {
		c := l.mustDial("10.77.0.1:53")
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, err := c.Read(make([]byte, 1))
		return err != io.EOF
	})
}

func TestThousandConnectionsStand(t *testing.T) {
	l := newLab(t, mustPolicy(t, true))
	l.world.serve("tcp", "192.0.2.1:80", listen(t, echo))
	var all []net.Conn
	for range 1000 {
		all = append(all, l.mustDial("192.0.2.1:80"))
	}
	for _, c := range all {
		if err := echoes(c, "x"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all are counted", func() bool {
		r := l.network.Records()
		return len(r) == 1 && r[0].Open == 1000 && r[0].Received == 1000
	})
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	t.Logf("both stacks: %d MiB of heap, %d MiB of stacks", m.HeapInuse>>20, m.StackInuse>>20)
}
