package vnet

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// maxRecords bounds what is remembered of a VM's network: the records that
// were quiet for longest go, those of open connections last.
const maxRecords = 1024

// Record is what is known of one destination: a name or, where it was given by
// no answer, an address; a port; and a protocol ("tcp", "udp", "icmp", "dns").
type Record struct {
	Protocol string     `json:"protocol"`
	Name     string     `json:"name,omitempty"`
	Addr     netip.Addr `json:"addr,omitzero"` // the latest of the name
	Port     uint16     `json:"port,omitempty"`
	Open     int        `json:"open"` // connections now
	Allowed  uint64     `json:"allowed"`
	Refused  uint64     `json:"refused"`
	Failed   uint64     `json:"failed"` // allowed, but nobody was there
	Sent     uint64     `json:"sent_bytes"`
	Received uint64     `json:"received_bytes"`
	Why      string     `json:"why,omitempty"`  // of the latest refusal
	Rule     string     `json:"rule,omitempty"` // what --allow opens it, if anything does
	First    time.Time  `json:"first"`
	Last     time.Time  `json:"last"`

	lastRefused time.Time
}

type recordKey struct {
	protocol, whom string
	port           uint16
}

// account is a record that counts while its connections run.
type account struct {
	Record
	sent, received atomic.Uint64
}

type records struct {
	now func() time.Time

	mu  sync.Mutex
	all map[recordKey]*account
}

func newRecords(now func() time.Time) *records {
	return &records{now: now, all: map[recordKey]*account{}}
}

// note writes down a verdict. The account is the caller's until closed where the
// verdict allows; bytes are counted in it.
func (r *records) note(protocol string, d Destination, v Verdict) *account {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.find(protocol, d, v)
	a.Last, a.Addr = r.now(), d.Addr
	if v.Rule != "" || !v.Allowed {
		a.Rule = v.Rule
	}
	if v.Allowed {
		a.Allowed++
		a.Open++
	} else {
		a.Refused++
		a.Why, a.lastRefused = v.Why, a.Last
	}
	return a
}

func (r *records) find(protocol string, d Destination, v Verdict) *account {
	key := recordKey{protocol, v.Name, d.Port}
	if key.whom == "" {
		key.whom = d.Addr.String()
	}
	if a := r.all[key]; a != nil {
		return a
	}
	if len(r.all) >= maxRecords {
		r.forget()
	}
	a := &account{Record: Record{Protocol: protocol, Name: v.Name, Port: d.Port, First: r.now()}}
	r.all[key] = a
	return a
}

// forget makes room for many at once, so that a scan of ports costs little.
func (r *records) forget() {
	keys := slices.SortedFunc(maps.Keys(r.all), func(a, b recordKey) int {
		x, y := r.all[a], r.all[b]
		return cmp.Or(cmp.Compare(min(x.Open, 1), min(y.Open, 1)), x.Last.Compare(y.Last))
	})
	for _, key := range keys[:len(keys)/8] {
		delete(r.all, key)
	}
}

func (r *records) closed(a *account, failed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a.Open--
	a.Last = r.now()
	if failed {
		a.Failed++
	}
}

// list gives the records, those used last first.
func (r *records) list() []Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Record, 0, len(r.all))
	for _, a := range r.all {
		a.Sent, a.Received = a.sent.Load(), a.received.Load()
		all = append(all, a.Record)
	}
	slices.SortFunc(all, func(a, b Record) int {
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.whom(), b.whom()), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
	return all
}

func (r Record) whom() string {
	if r.Name != "" {
		return r.Name
	}
	return r.Addr.String()
}

func (r Record) subject() string {
	if r.Port == 0 {
		return r.whom()
	}
	return fmt.Sprintf("%s:%d", r.whom(), r.Port)
}

// learn gives the rules that would allow all that was asked for, sorted. A name
// that was asked for and then connected to is there with the ports alone.
func learn(all []Record) []string {
	connected := map[string]bool{}
	for _, r := range all {
		if r.Protocol != "dns" && r.Rule != "" {
			connected[r.Name] = true
		}
	}
	var rules []string
	for _, r := range all {
		if r.Rule != "" && (r.Protocol != "dns" || r.Rule != r.Name || !connected[r.Name]) {
			rules = append(rules, r.Rule)
		}
	}
	slices.Sort(rules)
	return slices.Compact(rules)
}

// maxExplained is how many refusals fit one line.
const maxExplained = 3

// explain says in one line what was refused since then and the flags for it, or
// nothing where nothing was. nat says whether that mode is on already.
func explain(all []Record, since time.Time, nat bool) string {
	var subjects, flags []string
	natHelps := false
	for _, r := range all {
		if r.Refused == 0 || r.lastRefused.Before(since) || slices.Contains(subjects, r.subject()) {
			continue
		}
		subjects = append(subjects, r.subject())
		opener := r.Rule
		if opener == "" && r.Name == hostName {
			opener = hostName + ":PORT" // its name was asked for, and no port yet
		}
		flag := "--allow " + opener
		if opener != "" && len(flags) < maxExplained && !slices.Contains(flags, flag) {
			flags = append(flags, flag)
		}
		natHelps = natHelps || !nat && r.Why == whyNotAllowed
	}
	if len(subjects) == 0 {
		return ""
	}
	more := len(subjects) - maxExplained
	if more > 0 {
		subjects = append(subjects[:maxExplained], fmt.Sprintf("%d more", more))
	}
	line := "network: refused " + strings.Join(subjects, ", ")
	switch remedy := strings.Join(flags, " "); {
	case remedy == "" && natHelps:
		line += " (--nat allows it)"
	case natHelps:
		line += " (" + remedy + ", or --nat)"
	case remedy != "":
		line += " (" + remedy + ")"
	default:
		line += " (nothing allows it)"
	}
	return line
}
