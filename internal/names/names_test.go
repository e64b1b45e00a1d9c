package names

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"banger"
)

// open answers for one VM, devbox.
func open(t *testing.T) (address string, s *Server) {
	t.Helper()
	s, err := Open(Config{
		// An address that nobody else uses: a port must be free for UDP and TCP.
		Address: fmt.Sprintf("127.204.%d.%d:0", rand.IntN(256), rand.IntN(256)), Owner: "us", Log: slog.New(slog.DiscardHandler),
		Lookup: func(_ context.Context, name string) (netip.Addr, bool) {
			return netip.MustParseAddr("127.77.0.2"), name == "devbox"
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s.servers[0].PacketConn.LocalAddr().String(), s
}

func ask(t *testing.T, address, network, name string, typ uint16) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, typ)
	m.SetEdns0(4096, false)
	reply, _, err := (&dns.Client{Net: network, Timeout: 10 * time.Second}).Exchange(m, address)
	if err != nil {
		t.Fatalf("%s %s: %v", network, name, err)
	}
	return reply
}

func TestAnswersForVMs(t *testing.T) {
	address, _ := open(t)
	for _, network := range []string{"udp", "tcp"} {
		for _, c := range []struct {
			name   string
			typ    uint16
			rcode  int
			answer string
			soa    bool
		}{
			{"devbox.vm.", dns.TypeA, dns.RcodeSuccess, "devbox.vm.\t1\tIN\tA\t127.77.0.2", false},
			{"DevBox.VM.", dns.TypeA, dns.RcodeSuccess, "DevBox.VM.\t1\tIN\tA\t127.77.0.2", false},
			{"a.b.devbox.vm.", dns.TypeA, dns.RcodeSuccess, "a.b.devbox.vm.\t1\tIN\tA\t127.77.0.2", false},
			{"devbox.vm.", dns.TypeANY, dns.RcodeSuccess, "devbox.vm.\t1\tIN\tA\t127.77.0.2", false},
			{"devbox.vm.", dns.TypeAAAA, dns.RcodeSuccess, "", true},
			{"devbox.vm.", dns.TypeMX, dns.RcodeSuccess, "", true},
			{"other.vm.", dns.TypeA, dns.RcodeNameError, "", true},
			{"devbox.other.vm.", dns.TypeA, dns.RcodeNameError, "", true},
			{"host.vm.", dns.TypeA, dns.RcodeNameError, "", true},
			{"not_a_name.vm.", dns.TypeAAAA, dns.RcodeNameError, "", true},
			{"vm.", dns.TypeA, dns.RcodeSuccess, "", true},
			{Whose, dns.TypeTXT, dns.RcodeSuccess, Whose + "\t1\tIN\tTXT\t\"us\"", false},
			{"example.com.", dns.TypeA, dns.RcodeRefused, "", false},
			{"devbox.vm.example.com.", dns.TypeA, dns.RcodeRefused, "", false},
			{".", dns.TypeNS, dns.RcodeRefused, "", false},
		} {
			m := ask(t, address, network, c.name, c.typ)
			got := ""
			for _, rr := range m.Answer {
				got += rr.String()
			}
			if m.Rcode != c.rcode || got != c.answer {
				t.Errorf("%s %s %d: %s %q", network, c.name, c.typ, dns.RcodeToString[m.Rcode], got)
			}
			if soa := len(m.Ns) == 1 && m.Ns[0].Header().Rrtype == dns.TypeSOA && m.Ns[0].Header().Ttl == 1; soa != c.soa {
				t.Errorf("%s %s %d: authority is %v", network, c.name, c.typ, m.Ns)
			}
			if m.Authoritative != (c.rcode != dns.RcodeRefused) {
				t.Errorf("%s %s %d: authoritative %v", network, c.name, c.typ, m.Authoritative)
			}
		}
	}
	if m := ask(t, address, "udp", "vm.", dns.TypeSOA); len(m.Answer) != 1 || m.IsEdns0() == nil {
		t.Errorf("the zone is %v", m)
	}
}

func TestNonsenseIsSurvived(t *testing.T) {
	address, _ := open(t)
	for _, network := range []string{"udp", "tcp"} {
		c, err := net.Dial(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, junk := range []string{
			"", "\x00", "\xff\xff\xff\xff\xff\xff", string(make([]byte, 12)), string(make([]byte, 511)),
			"\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01",             // a name that is itself
			"\x00\x01\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\x01a\x00\x00\x01\x00\x01",            // more than there is
			"\x00\x01\x80\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06devbox\x02vm\x00\x00\x01\x00\x01", // an answer
		} {
			_, _ = c.Write([]byte(junk))
		}
		if m := ask(t, address, network, "devbox.vm.", dns.TypeA); len(m.Answer) != 1 {
			t.Errorf("%s: after that it says %v", network, m)
		}
	}
	two := new(dns.Msg).SetQuestion("devbox.vm.", dns.TypeA)
	two.Question = append(two.Question, two.Question[0])
	if m, _, err := new(dns.Client).Exchange(two, address); err == nil && m.Rcode != dns.RcodeFormatError {
		t.Errorf("two questions at once give %v", m)
	}
}

func TestManyConnectionsLeaveRoomForOthers(t *testing.T) {
	address, _ := open(t)
	var first net.Conn
	for i := range tcpConns + 20 { // which say nothing
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i == 0 {
			first = c
		}
		if i == tcpConns+19 {
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("one too many is served")
			}
		}
	}
	if m := ask(t, address, "udp", "devbox.vm.", dns.TypeA); len(m.Answer) != 1 {
		t.Errorf("UDP says %v", m)
	}
	_ = first.Close()
	for { // the server may still be about to notice
		m, _, err := (&dns.Client{Net: "tcp"}).Exchange(new(dns.Msg).SetQuestion("devbox.vm.", dns.TypeA), address)
		if err == nil && len(m.Answer) == 1 {
			return
		}
	}
}

func TestFloodIsNotAnswered(t *testing.T) {
	address, s := open(t)
	s.rate.SetLimit(0)
	s.rate.SetBurst(0)
	c := &dns.Client{Timeout: 100 * time.Millisecond}
	if m, _, err := c.Exchange(new(dns.Msg).SetQuestion("devbox.vm.", dns.TypeA), address); err == nil {
		t.Errorf("what is beyond the bound gets %v", m)
	}
	s.rate.SetLimit(questionsSecond)
	s.rate.SetBurst(questionsBurst)
	for { // what there is of it comes back with time
		if _, _, err := c.Exchange(new(dns.Msg).SetQuestion("devbox.vm.", dns.TypeA), address); err == nil {
			return
		}
	}
}

func TestTakenPortIsAConflict(t *testing.T) {
	address, s := open(t)
	c := s.config
	c.Address = address
	if _, err := Open(c); banger.CodeOf(err) != banger.Conflict {
		t.Fatalf("got %v", err)
	}
	s.Close()
	again, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	conn, err := net.Dial("tcp", address)
	if err == nil {
		_, err = io.ReadAll(conn)
		t.Errorf("it answers after its end, %v", err)
	}
}
