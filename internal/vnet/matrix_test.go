package vnet

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"banger/internal/vnet/reach"
	"banger/internal/vnet/ways"
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

// do carries out the steps of a way.
func (l *lab) do(t *testing.T, mode *reach.Policy, steps []ways.Step) {
	t.Helper()
	for _, s := range steps {
		switch s.Do {
		case ways.TCP:
			if c, err := l.dial(s.To); err == nil {
				c.Close()
			}
		case ways.UDP:
			_, _ = l.dialUDP(s.To).Write([]byte("x"))
		case ways.AskUDP, ways.AskTCP:
			l.resolve(t, strings.TrimPrefix(s.Do, "ask "), s.To, s.Type)
		case ways.Frame:
			l.send(s.Frame)
		case ways.Mean:
			l.zone.mu.Lock()
			l.zone.answers = map[string][]string{"rebind.com. A": {"rebind.com. 0 IN A " + s.To}}
			l.zone.mu.Unlock()
		case ways.OpenAll:
			l.network.SetPolicy(mustPolicy(t, true))
		case ways.CloseAgain:
			l.network.SetPolicy(mode)
		case ways.Later:
			l.clock.pass(2 * maxTTL)
		default:
			t.Fatalf("nobody knows how to %q", s.Do)
		}
	}
}

// counted is the sum of counters by their JSON names.
func counted(t *testing.T, c reach.Counters, names []string) (sum uint64) {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]uint64{}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		n, ok := all[name]
		if !ok {
			t.Fatalf("there is no counter %s", name)
		}
		sum += n
	}
	return sum
}

// Every way in every mode: it leaves where the list says and nowhere else, and
// where it does not, the counter of its kind shows that it was tried.
func TestWaysOutInEveryMode(t *testing.T) {
	modes := []struct {
		letter string
		policy *reach.Policy
	}{{"0", mustPolicy(t, false)}, {"a", mustPolicy(t, false, ways.Rules...)}, {"n", mustPolicy(t, true)}}
	var report strings.Builder
	for _, mode := range modes {
		l := newLab(t, mode.policy, pinging)
		zone := l.zone.answers
		for _, way := range ways.All {
			l.network.SetPolicy(mode.policy)
			l.zone.mu.Lock()
			l.zone.answers = zone
			l.zone.mu.Unlock()
			l.clock.pass(3 * maxTTL) // nothing is known of the way before, and there is room to ask
			l.do(t, mode.policy, way.First)
			connections, questions := len(l.world.dialled()), l.questions()
			before := counted(t, l.network.Counters(), way.Counter)
			l.do(t, mode.policy, way.Then)
			var left []string
			var refused uint64
			eventually(t, way.Name+" left or was counted", func() bool {
				left, refused = l.since(connections, questions), counted(t, l.network.Counters(), way.Counter)-before
				return len(left) > 0 || refused > 0
			})
			verdict := "refused"
			if len(left) > 0 {
				verdict = "out: " + strings.Join(left, ", ")
			}
			fmt.Fprintf(&report, "%-40s %-2s %-34s %d\n", way.Name, mode.letter, verdict, refused)
			want := strings.Contains(way.Passes, mode.letter)
			if want != (len(left) > 0) || want && left[0] != way.Out {
				t.Errorf("%s in mode %s: %s, counted %d", way.Name, mode.letter, verdict, refused)
			}
		}
		for _, out := range l.world.dialled() { // whatever came when
			if strings.Contains(out, " 10.9.") || strings.Contains(out, " 10.77.") || strings.Contains(out, "169.254") || strings.Contains(out, " 203.0.113.7") {
				t.Errorf("mode %s: %s", mode.letter, out)
			}
		}
	}
	t.Logf("way, mode, verdict, counter\n%s", report.String())
}

func TestGatewayAnswersPings(t *testing.T) {
	l := newLab(t, mustPolicy(t, false))
	l.send(ways.Ping("10.77.0.1", "are you there"))
	got := l.wait(t, "the gateway answers", func(f []byte) bool { return f[23] == 1 && f[34] == 0 })
	if !strings.HasSuffix(string(got), "are you there") {
		t.Errorf("%x", got)
	}
}

func TestPingIsSentOnWhereAllowed(t *testing.T) {
	l := newLab(t, mustPolicy(t, false, "192.0.2.9", "192.0.2.8:80"), pinging)
	l.send(ways.Ping("192.0.2.8", "its port alone is allowed"))
	l.send(ways.Ping("192.0.2.9", "are you there"))
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
		l.send(ways.Neighbour(guestAddr.String(), other, reach.GuestMAC))
	}
	l.send(ways.Neighbour("0.0.0.0", gatewayAddr.String(), reach.GuestMAC))
	reply := func(f []byte) bool { return f[12] == 8 && f[13] == 6 }
	select {
	case f := <-l.frames:
		a := header.ARP(f[ethernetSize:])
		if !reply(f) || a.Op() != header.ARPReply || string(a.HardwareAddressSender()) != string(reach.GatewayMAC) || netip.AddrFrom4([4]byte(a.ProtocolAddressSender())) != gatewayAddr {
			t.Errorf("%x", f)
		}
	case <-time.After(patience):
		t.Error("no answer")
	}
	if n := len(l.frames); n != 0 {
		t.Errorf("%d more answers", n)
	}
}
