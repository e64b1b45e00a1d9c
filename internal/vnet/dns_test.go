package vnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"banger/internal/vnet/reach"
)

// zone is a resolver with fixed answers that keeps what it was asked.
type zone struct {
	mu      sync.Mutex
	answers map[string][]string // "name. TYPE" → records in presentation form
	asked   []*dns.Msg
	before  func() // called while the question is under way
}

func (z *zone) Exchange(_ context.Context, q *dns.Msg) (*dns.Msg, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked = append(z.asked, q.Copy())
	if z.before != nil {
		z.before()
	}
	records, ok := z.answers[q.Question[0].Name+" "+dns.TypeToString[q.Question[0].Qtype]]
	if !ok {
		return new(dns.Msg).SetRcode(q, dns.RcodeNameError), nil
	}
	if slices.Equal(records, []string{"fail"}) {
		return nil, errors.New("nobody answers")
	}
	reply := new(dns.Msg).SetReply(q)
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			return nil, err
		}
		reply.Answer = append(reply.Answer, rr)
	}
	return reply, nil
}

// tick is a clock that the test moves.
type tick struct {
	mu sync.Mutex
	t  time.Time
}

func newTick() *tick { return &tick{t: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)} }

func (c *tick) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *tick) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func newTestServer(t *testing.T, z *zone, p *reach.Policy) (*nameServer, *tick, *reach.Policy) {
	c := newTick()
	s := &nameServer{
		gateway: netip.MustParseAddr("10.77.0.1"), ground: ground, policy: func() *reach.Policy { return p },
		resolver: z, names: newNames(c.now), records: newRecords(c.now), counters: &counters{},
		rate: newBucket(c.now, 10, 20), tunnels: newTunnels(), asking: make(chan struct{}, 4), ctx: t.Context(),
	}
	return s, c, p
}

func ask(s *nameServer, name string, qtype uint16) *dns.Msg {
	return s.answer(new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype))
}

// said is an answer in one line: status and addresses or types.
func said(m *dns.Msg) string {
	words := []string{dns.RcodeToString[m.Rcode]}
	for _, rr := range m.Answer {
		if a, ok := rr.(*dns.A); ok {
			words = append(words, a.A.String())
		} else {
			words = append(words, dns.TypeToString[rr.Header().Rrtype])
		}
	}
	return strings.Join(words, " ")
}

var testZone = map[string][]string{
	"example.com. A":              {"example.com. 300 IN A 192.0.2.1", "example.com. 300 IN A 192.0.2.2"},
	"example.com. TXT":            {`example.com. 300 IN TXT "x"`},
	"example.com. AAAA":           {"example.com. 300 IN AAAA 2001:db8::1"},
	"a.example.org. A":            {"c.cdn.net. 20 IN A 192.0.2.9", "a.example.org. 300 IN CNAME b.cdn.net.", "b.cdn.net. 300 IN CNAME c.cdn.net.", "evil.com. 300 IN A 192.0.2.66"},
	"private.com. A":              {"private.com. 0 IN A 10.1.2.3"},
	"mixed.com. A":                {"mixed.com. 0 IN A 10.1.2.3", "mixed.com. 0 IN A 192.0.2.3", "mixed.com. 0 IN A 127.0.0.1", "mixed.com. 0 IN A 203.0.113.7"},
	"metadata.com. A":             {"metadata.com. 0 IN A 169.254.169.254"},
	"vm.com. A":                   {"vm.com. 0 IN A 10.77.0.3"},
	"broken.com. A":               {"fail"},
	"1.2.0.192.in-addr.arpa. PTR": {"1.2.0.192.in-addr.arpa. 9 IN PTR example.com."},
}

func TestAnswersByPolicy(t *testing.T) {
	none, nat := mustPolicy(t, false), mustPolicy(t, true)
	list := mustPolicy(t, false, "example.com:443", "*.example.org", "private.com", "host.vm:80")
	both := mustPolicy(t, false, "private.com", "10.1.2.3:443")
	for _, c := range []struct {
		policy *reach.Policy
		name   string
		qtype  uint16
		want   string
		asks   bool
	}{
		{none, "example.com", dns.TypeA, "REFUSED", false},
		{none, "example.com", dns.TypeAAAA, "REFUSED", false},
		{none, "host.vm", dns.TypeA, "REFUSED", false},
		{nat, "example.com", dns.TypeA, "NOERROR 192.0.2.1 192.0.2.2", true},
		{nat, "example.com", dns.TypeAAAA, "NOERROR", false},
		{nat, "example.com", dns.TypeHTTPS, "NOERROR", false},
		{nat, "example.com", dns.TypeTXT, "NOERROR TXT", true},
		{nat, "example.com", dns.TypeANY, "REFUSED", false},
		{nat, "example.com", dns.TypeAXFR, "REFUSED", false},
		{nat, "example.com", dns.TypeNULL, "REFUSED", false},
		{nat, "nobody.com", dns.TypeA, "NXDOMAIN", true},
		{nat, "broken.com", dns.TypeA, "SERVFAIL", true},
		{nat, "private.com", dns.TypeA, "REFUSED", true},
		{nat, "metadata.com", dns.TypeA, "REFUSED", true},
		{nat, "vm.com", dns.TypeA, "REFUSED", true},
		{nat, "mixed.com", dns.TypeA, "NOERROR 192.0.2.3", true},
		{nat, "host.vm", dns.TypeA, "REFUSED", false},
		{nat, "other.vm", dns.TypeA, "REFUSED", false},
		{nat, "1.2.0.192.in-addr.arpa", dns.TypePTR, "NOERROR PTR", true},
		{nat, "3.2.1.10.in-addr.arpa", dns.TypePTR, "REFUSED", false},
		{nat, "10.in-addr.arpa", dns.TypeNS, "REFUSED", false},
		{nat, "1.0.ip6.arpa", dns.TypePTR, "REFUSED", false},
		{nat, `x\.example.com`, dns.TypeA, "REFUSED", false},
		{nat, `x\000.com`, dns.TypeA, "REFUSED", false},
		{list, "Example.COM", dns.TypeA, "NOERROR 192.0.2.1 192.0.2.2", true},
		{list, "a.example.org", dns.TypeA, "NOERROR 192.0.2.9 CNAME CNAME", true},
		{list, "example.org", dns.TypeA, "REFUSED", false},
		{list, "b.cdn.net", dns.TypeA, "REFUSED", false},
		{list, `x\.example.org`, dns.TypeA, "REFUSED", false},
		{list, "private.com", dns.TypeA, "REFUSED", true},
		{list, "host.vm", dns.TypeA, "NOERROR 10.77.0.1", false},
		{list, "host.vm", dns.TypeAAAA, "NOERROR", false},
		{list, "data.tunnel.net", dns.TypeTXT, "REFUSED", false},
		{both, "private.com", dns.TypeA, "NOERROR 10.1.2.3", true},
	} {
		z := &zone{answers: testZone}
		s, _, _ := newTestServer(t, z, c.policy)
		if got := said(ask(s, c.name, c.qtype)); got != c.want || (len(z.asked) == 1) != c.asks {
			t.Errorf("%s: %s %s: %s, asked %d times", c.policy, c.name, dns.TypeToString[c.qtype], got, len(z.asked))
		}
	}
}

func TestOtherClassesAndQuestionsAreRefused(t *testing.T) {
	s, _, _ := newTestServer(t, &zone{answers: testZone}, mustPolicy(t, true))
	q := new(dns.Msg).SetQuestion("example.com.", dns.TypeA)
	q.Question[0].Qclass = dns.ClassCHAOS
	if got := said(s.answer(q)); got != "REFUSED" {
		t.Error(got)
	}
	q.Question = append(q.Question, q.Question[0])
	if got := said(s.answer(q)); got != "FORMERR" {
		t.Error(got)
	}
}

// Nothing of the guest's but the name and the type goes upstream.
func TestQuestionUpstreamIsMadeAfresh(t *testing.T) {
	z := &zone{answers: testZone}
	s, _, _ := newTestServer(t, z, mustPolicy(t, true))
	q := new(dns.Msg).SetQuestion("eXaMpLe.com.", dns.TypeA)
	q.SetEdns0(4096, true)
	q.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: 65001, Data: []byte("data")}}
	q.Extra = append(q.Extra, &dns.TXT{Hdr: dns.RR_Header{Name: "data.", Rrtype: dns.TypeTXT}, Txt: []string{"data"}})
	reply := s.answer(q)
	up := z.asked[0]
	if up.Question[0].Name != "example.com." || len(up.Extra) != 1 || len(up.IsEdns0().Option) != 0 || up.IsEdns0().Do() {
		t.Errorf("upstream was asked %v", up)
	}
	if reply.Question[0].Name != "eXaMpLe.com." || reply.Answer[0].Header().Name != "eXaMpLe.com." || reply.Id != q.Id {
		t.Errorf("the guest was told %v", reply)
	}
}

func TestAnswersAreRememberedBeyondTheirTime(t *testing.T) {
	s, c, _ := newTestServer(t, &zone{answers: testZone}, mustPolicy(t, true))
	ask(s, "mixed.com", dns.TypeA) // no time at all
	ask(s, "a.example.org", dns.TypeA)
	mixed, aliased := netip.MustParseAddr("192.0.2.3"), netip.MustParseAddr("192.0.2.9")
	if got := s.names.of(mixed); !slices.Equal(got, []string{"mixed.com"}) {
		t.Error(got)
	}
	if got := s.names.of(aliased); !slices.Equal(got, []string{"a.example.org"}) {
		t.Errorf("an alias is not what was asked for: %v", got)
	}
	for _, hidden := range []string{"10.1.2.3", "127.0.0.1", "203.0.113.7", "192.0.2.66"} {
		if got := s.names.of(netip.MustParseAddr(hidden)); len(got) > 0 {
			t.Errorf("%s: %v", hidden, got)
		}
	}
	c.pass(nameGrace)
	if len(s.names.of(mixed)) != 1 {
		t.Error("forgotten within the grace")
	}
	c.pass(time.Second)
	if len(s.names.of(mixed)) != 0 || len(s.names.of(aliased)) != 1 {
		t.Error("times are wrong")
	}
}

// A policy that changes while a question is under way is the one that counts.
func TestAnswerIsJudgedByThePolicyOfItsArrival(t *testing.T) {
	current := mustPolicy(t, true)
	z := &zone{answers: testZone}
	s, _, _ := newTestServer(t, z, nil)
	s.policy = func() *reach.Policy { return current }
	z.before = func() { current = mustPolicy(t, false) }
	if got := said(ask(s, "example.com", dns.TypeA)); got != "REFUSED" {
		t.Error(got)
	}
	if got := s.names.of(netip.MustParseAddr("192.0.2.1")); len(got) > 0 {
		t.Error(got)
	}
}

func TestNamesAreBounded(t *testing.T) {
	c := newTick()
	n := newNames(c.now)
	for i := range 3 * maxAnswers {
		n.remember(netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}), "a.com", time.Duration(i)*time.Millisecond)
	}
	last := netip.AddrFrom4([4]byte{192, 0, byte((3*maxAnswers - 1) >> 8), 255})
	if len(n.until) > maxAnswers || len(n.of(last)) != 1 {
		t.Errorf("%d addresses, %v", len(n.until), n.of(last))
	}
	for i := range 2 * maxNamesAnswers {
		n.remember(last, fmt.Sprintf("%d.com", i), time.Hour)
	}
	if got := n.of(last); len(got) != maxNamesAnswers || !slices.Contains(got, "31.com") {
		t.Error(got)
	}
}

func TestAnswersGoOnForAGuestThatStoodStill(t *testing.T) {
	before, c := newTick(), newTick()
	first, second := newNames(before.now), newNames(c.now)
	short, long, over := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
	first.remember(over, "over.com", 0)
	before.pass(nameGrace)
	first.remember(short, "short.com", time.Second)
	first.remember(long, "long.com", maxTTL)
	c.pass(24 * time.Hour)
	kept := first.list()
	second.recall(kept)
	if len(second.of(short)) != 1 || len(second.of(long)) != 1 || len(second.of(over)) != 0 {
		t.Errorf("of %+v there is %+v", kept, second.until)
	}
	c.pass(nameGrace + 2*time.Second)
	if len(second.of(short)) != 0 || len(second.of(long)) != 1 {
		t.Error("times are wrong")
	}
	for i := range maxAnswers {
		first.remember(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), "a.com", time.Minute)
	}
	if kept := first.list(); len(kept) != maxKept || kept[0].Name != "long.com" {
		t.Errorf("%d are kept, first %+v", len(kept), kept[0])
	}
}

func TestRateIsLimited(t *testing.T) {
	c := newTick()
	b := newBucket(c.now, 10, 20)
	count := func() (n int) {
		for range 100 {
			if b.take() {
				n++
			}
		}
		return n
	}
	if n := count(); n != 20 {
		t.Error(n)
	}
	c.pass(500 * time.Millisecond)
	if n := count(); n != 5 {
		t.Error(n)
	}
	c.pass(time.Hour)
	if n := count(); n != 20 {
		t.Error(n)
	}
}

func TestQuestionsUnderWayAreLimited(t *testing.T) {
	z := &zone{answers: testZone}
	s, _, _ := newTestServer(t, z, mustPolicy(t, true))
	for range cap(s.asking) {
		s.asking <- struct{}{}
	}
	if got := said(ask(s, "example.com", dns.TypeA)); got != "SERVFAIL" || len(z.asked) != 0 {
		t.Error(got)
	}
}

func TestTunnelledNamesAreCounted(t *testing.T) {
	s, _, _ := newTestServer(t, &zone{}, mustPolicy(t, false))
	for i := range manyNames + 10 {
		ask(s, fmt.Sprintf("x%d.data.tunnel.net", i), dns.TypeTXT)
		ask(s, "example.com", dns.TypeA)
	}
	ask(s, strings.Repeat(strings.Repeat("a", 60)+".", 3)+"net", dns.TypeA)
	got := s.counters.read()
	if got.DNSManyNames != 10 || got.DNSLongNames != 1 || got.DNSRefused != 2*(manyNames+10)+1 {
		t.Errorf("%+v", got)
	}
}

func TestRefusedNamesAreRecorded(t *testing.T) {
	s, _, _ := newTestServer(t, &zone{answers: testZone}, mustPolicy(t, false, "private.com"))
	ask(s, "deb.example.com", dns.TypeA)
	ask(s, "deb.example.com", dns.TypeAAAA)
	ask(s, "private.com", dns.TypeA)
	ask(s, "host.vm", dns.TypeA)
	all := s.records.list()
	if got := reach.Learn(all); !slices.Equal(got, []string{"10.1.2.3", "deb.example.com"}) {
		t.Error(got)
	}
	want := "network: refused deb.example.com, host.vm, private.com (--allow deb.example.com --allow host.vm:PORT --allow 10.1.2.3, or --nat)"
	if got := explain(all, time.Time{}, false); got != want {
		t.Error(got)
	}
}
