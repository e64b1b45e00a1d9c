package vnet

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"banger/internal/vnet/reach"
)

const (
	// nameGrace is how long an answer counts beyond its time: a program connects
	// a moment after it asked, and the answer may have had no time at all.
	nameGrace = time.Minute
	// maxTTL bounds the time that is given on to the guest, so that what it
	// still believes is never more than what is remembered here.
	maxTTL = time.Hour

	maxAnswers      = 4096
	maxNamesAnswers = 16 // names of one address

	maxKept = 1024 // of both, for a network that is made anew
)

// names remembers which names gave which addresses. A connection is judged by
// the names of its address: nothing is looked up again, so that a name that
// changes its answer in between gains nothing.
type names struct {
	now func() time.Time

	mu    sync.Mutex
	until map[netip.Addr]map[string]time.Time
}

func newNames(now func() time.Time) *names {
	return &names{now: now, until: map[netip.Addr]map[string]time.Time{}}
}

func (n *names) remember(addr netip.Addr, name string, ttl time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.now()
	of := n.until[addr]
	if of == nil {
		if len(n.until) >= maxAnswers {
			n.forget()
		}
		of = map[string]time.Time{}
		n.until[addr] = of
	}
	if _, known := of[name]; !known && len(of) >= maxNamesAnswers {
		delete(of, earliest(of))
	}
	if end := now.Add(min(ttl, maxTTL) + nameGrace); end.After(of[name]) {
		of[name] = end
	}
}

// forget makes room for many at once, so that a flood of names costs little: an
// eighth goes, what ends first.
func (n *names) forget() {
	addrs := slices.SortedFunc(maps.Keys(n.until), func(a, b netip.Addr) int {
		return latest(n.until[a]).Compare(latest(n.until[b]))
	})
	for _, addr := range addrs[:len(addrs)/8] {
		delete(n.until, addr)
	}
}

// of gives the names whose answers gave addr and still count, sorted.
func (n *names) of(addr netip.Addr) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []string
	for name, end := range n.until[addr] {
		if !n.now().After(end) {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// list gives the answers that still count, those that count longest first.
func (n *names) list() (all []reach.Answer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.now()
	for addr, of := range n.until {
		for name, end := range of {
			if left := end.Sub(now); left > 0 {
				all = append(all, reach.Answer{Name: name, Addr: addr, Left: left})
			}
		}
	}
	slices.SortFunc(all, func(a, b reach.Answer) int {
		return cmp.Or(cmp.Compare(b.Left, a.Left), a.Addr.Compare(b.Addr), cmp.Compare(a.Name, b.Name))
	})
	return all[:min(len(all), maxKept)]
}

// recall puts back what list gave, with the time that was left then.
func (n *names) recall(earlier []reach.Answer) {
	for _, a := range earlier[:min(len(earlier), maxKept)] {
		if a.Left > 0 {
			n.remember(a.Addr, a.Name, a.Left-nameGrace)
		}
	}
}

func earliest(of map[string]time.Time) (name string) {
	for candidate, end := range of {
		if name == "" || end.Before(of[name]) {
			name = candidate
		}
	}
	return name
}

func latest(of map[string]time.Time) (end time.Time) {
	for _, e := range of {
		if e.After(end) {
			end = e
		}
	}
	return end
}
