package vnet

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"banger/internal/vnet/reach"
)

// maxRecords bounds what is remembered of a VM's network: the records that
// were quiet for longest go, those of open connections last.
const maxRecords = 1024

type recordKey struct {
	protocol, whom string
	port           uint16
}

// account is a record that counts while its connections run.
type account struct {
	reach.Record
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
func (r *records) note(protocol string, d reach.Destination, v reach.Verdict) *account {
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
		a.Why, a.LastRefused = v.Why, a.Last
	}
	return a
}

func (r *records) find(protocol string, d reach.Destination, v reach.Verdict) *account {
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
	a := &account{Record: reach.Record{Protocol: protocol, Name: v.Name, Port: d.Port, First: r.now()}}
	r.all[key] = a
	return a
}

// recall puts back what was known of a network before it was made anew. The latest
// count where there are too many.
func (r *records) recall(earlier []reach.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range earlier {
		if len(r.all) >= maxRecords {
			return
		}
		e.Open = 0
		a := &account{Record: e}
		a.sent.Store(e.Sent)
		a.received.Store(e.Received)
		r.all[recordKey{e.Protocol, e.Whom(), e.Port}] = a
	}
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
func (r *records) list() []reach.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]reach.Record, 0, len(r.all))
	for _, a := range r.all {
		a.Sent, a.Received = a.sent.Load(), a.received.Load()
		all = append(all, a.Record)
	}
	slices.SortFunc(all, func(a, b reach.Record) int {
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.Whom(), b.Whom()), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
	return all
}

// maxExplained is how many refusals fit one line.
const maxExplained = 3

// explain says in one line what was refused since then and the flags for it, or
// nothing where nothing was. nat says whether that mode is on already.
func explain(all []reach.Record, since time.Time, nat bool) string {
	var subjects, flags []string
	natHelps := false
	for _, r := range all {
		if r.Refused == 0 || r.LastRefused.Before(since) || slices.Contains(subjects, r.Subject()) {
			continue
		}
		subjects = append(subjects, r.Subject())
		opener := r.Rule
		if opener == "" && r.Name == reach.HostName {
			opener = reach.HostName + ":PORT" // its name was asked for, and no port yet
		}
		flag := "--allow " + opener
		if opener != "" && len(flags) < maxExplained && !slices.Contains(flags, flag) {
			flags = append(flags, flag)
		}
		natHelps = natHelps || !nat && r.Why == reach.WhyNotAllowed
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
