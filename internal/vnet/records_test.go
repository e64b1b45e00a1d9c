package vnet

import (
	"encoding/json"
	"net/netip"
	"slices"
	"testing"
	"time"

	"banger/internal/vnet/reach"
)

func note(r *records, p *reach.Policy, protocol, addr string, port uint16, names ...string) *account {
	d := reach.Destination{Addr: netip.MustParseAddr(addr), Port: port, Names: names}
	return r.note(protocol, d, p.Check(ground, d))
}

func TestRecordsCountByNameAndPort(t *testing.T) {
	c := newTick()
	r := newRecords(c.now)
	p := mustPolicy(t, false, "example.com:443")
	a := note(r, p, "tcp", "192.0.2.1", 443, "example.com")
	b := note(r, p, "tcp", "192.0.2.2", 443, "example.com")
	a.sent.Add(5)
	b.received.Add(7)
	r.closed(a, false)
	c.pass(time.Second)
	note(r, p, "tcp", "192.0.2.1", 80, "example.com")
	note(r, p, "udp", "192.0.2.9", 53)

	all := r.list()
	if len(all) != 3 {
		t.Fatalf("%+v", all)
	}
	web := all[2]
	if web.Name != "example.com" || web.Port != 443 || web.Allowed != 2 || web.Open != 1 || web.Sent != 5 || web.Received != 7 || web.Addr.String() != "192.0.2.2" {
		t.Errorf("%+v", web)
	}
	if r := all[0]; r.Name != "" || r.Refused != 1 || r.Rule != "192.0.2.9:53" || r.Why != reach.WhyNotAllowed {
		t.Errorf("%+v", r)
	}
}

func TestLearnedRulesAllowWhatWasNeeded(t *testing.T) {
	c := newTick()
	r := newRecords(c.now)
	asked := []struct {
		addr  string
		port  uint16
		names []string
	}{
		{"192.0.2.1", 443, []string{"example.com"}}, {"192.0.2.1", 443, []string{"example.com"}},
		{"192.0.2.7", 22, nil}, {"10.1.2.3", 5000, []string{"registry.corp"}}, {"192.0.2.8", 0, []string{"ping.com"}},
	}
	for _, nat := range []bool{true, false} {
		for _, d := range asked {
			note(r, mustPolicy(t, nat), "tcp", d.addr, d.port, d.names...)
		}
	}
	r.note("dns", reach.Destination{}, reach.Verdict{Name: "example.com", Rule: "example.com", Why: reach.WhyNotAllowed})
	r.note("dns", reach.Destination{}, reach.Verdict{Name: "never.com", Rule: "never.com", Why: reach.WhyNotAllowed})
	note(r, mustPolicy(t, true), "tcp", "127.0.0.1", 80) // nothing opens it

	rules := reach.Learn(r.list())
	want := []string{"10.1.2.3:5000", "192.0.2.7:22", "example.com:443", "never.com", "ping.com"}
	if !slices.Equal(rules, want) {
		t.Fatal(rules)
	}
	p := mustPolicy(t, false, rules...)
	for _, d := range asked {
		if v := p.Check(ground, reach.Destination{Addr: netip.MustParseAddr(d.addr), Port: d.port, Names: d.names}); !v.Allowed {
			t.Errorf("%+v: %+v", d, v)
		}
	}
}

func TestRefusalsAreExplainedInOneLine(t *testing.T) {
	c := newTick()
	r := newRecords(c.now)
	none, nat := mustPolicy(t, false), mustPolicy(t, true)
	if got := explain(r.list(), time.Time{}, false); got != "" {
		t.Error(got)
	}
	note(r, nat, "tcp", "192.0.2.1", 1)
	note(r, nat, "tcp", "127.0.0.1", 80)
	if got := explain(r.list(), time.Time{}, true); got != "network: refused 127.0.0.1:80 (nothing allows it)" {
		t.Error(got)
	}
	c.pass(time.Second)
	start := c.now()
	note(r, nat, "tcp", "10.1.2.3", 80)
	if got := explain(r.list(), start, true); got != "network: refused 10.1.2.3:80 (--allow 10.1.2.3:80)" {
		t.Error(got)
	}
	for port := uint16(1); port <= 5; port++ {
		note(r, none, "tcp", "192.0.2.1", port, "a.com")
	}
	want := "network: refused 10.1.2.3:80, a.com:1, a.com:2, 3 more (--allow 10.1.2.3:80 --allow a.com:1 --allow a.com:2, or --nat)"
	if got := explain(r.list(), start, false); got != want {
		t.Error(got)
	}
}

func TestRecordsAreBoundedAndKeepTheOpenOnes(t *testing.T) {
	c := newTick()
	r := newRecords(c.now)
	nat := mustPolicy(t, true)
	open := note(r, nat, "tcp", "192.0.2.1", 443)
	for i := range 3 * maxRecords {
		c.pass(time.Millisecond)
		note(r, nat, "tcp", "10.1.2.3", uint16(i+1))
	}
	all := r.list()
	if len(all) > maxRecords || len(all) < maxRecords*3/4 || all[len(all)-1].Port != 443 || all[0].Port != 3*maxRecords {
		t.Errorf("%d records, %+v", len(all), all[len(all)-1])
	}
	c.pass(time.Millisecond)
	r.closed(open, true)
	if all = r.list(); all[0].Port != 443 || all[0].Failed != 1 || all[0].Open != 0 {
		t.Errorf("%+v", all[0])
	}
}

func TestRecordsGoOnFromEarlierOnes(t *testing.T) {
	c := newTick()
	p := mustPolicy(t, false, "example.com:443")
	before := newRecords(c.now)
	note(before, p, "tcp", "192.0.2.1", 443, "example.com").sent.Add(5)
	note(before, p, "udp", "192.0.2.9", 53)
	text, err := json.Marshal(before.list())
	if err != nil {
		t.Fatal(err)
	}
	var earlier []reach.Record
	if err := json.Unmarshal(text, &earlier); err != nil {
		t.Fatal(err)
	}
	after := newRecords(c.now)
	after.recall(earlier)
	c.pass(time.Second)
	note(after, p, "tcp", "192.0.2.2", 443, "example.com").sent.Add(7)
	all := after.list()
	if len(all) != 2 || all[0].Allowed != 2 || all[0].Open != 1 || all[0].Sent != 12 || all[1].Refused != 1 {
		t.Errorf("%+v", all)
	}
	if got, want := reach.Learn(all), reach.Learn(before.list()); !slices.Equal(got, want) {
		t.Errorf("learned %q, not %q", got, want)
	}
	after.recall(make([]reach.Record, 2*maxRecords))
	for i := range 2 * maxRecords {
		after.recall([]reach.Record{{Protocol: "tcp", Port: uint16(i)}})
	}
	if n := len(after.list()); n != maxRecords {
		t.Errorf("%d records", n)
	}
}
