package vnet

import (
	"hash/maphash"
	"strings"
	"sync"
	"time"
)

// bucket is a rate: so many at once, and so many more each second.
type bucket struct {
	now    func() time.Time
	burst  float64
	second float64

	mu   sync.Mutex
	left float64
	last time.Time
}

func newBucket(now func() time.Time, second, burst int) *bucket {
	return &bucket{now: now, burst: float64(burst), second: float64(second), left: float64(burst), last: now()}
}

func (b *bucket) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	b.left = min(b.burst, b.left+now.Sub(b.last).Seconds()*b.second)
	b.last = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

const (
	longName     = 120 // characters; hardly any name that means a host is longer
	manyNames    = 250 // different names below one domain
	maxTunnelled = 1 << 14
)

// tunnels notices data that travels in names. It refuses nothing: what the
// policy does not allow is not asked for anyway, and who may reach a domain may
// send it what they like.
type tunnels struct {
	seed maphash.Seed

	mu    sync.Mutex
	below map[string]map[uint64]struct{}
	total int
}

func newTunnels() *tunnels {
	return &tunnels{seed: maphash.MakeSeed(), below: map[string]map[uint64]struct{}{}}
}

// many says whether name is one more of many different ones of its domain.
func (t *tunnels) many(name string) bool {
	domain := name
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		domain = name[strings.LastIndexByte(name[:i], '.')+1:]
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.total >= maxTunnelled {
		clear(t.below)
		t.total = 0
	}
	of := t.below[domain]
	if of == nil {
		of = map[uint64]struct{}{}
		t.below[domain] = of
	}
	sum := maphash.String(t.seed, name)
	if _, known := of[sum]; known {
		return false
	}
	of[sum] = struct{}{}
	t.total++
	return len(of) > manyNames
}

func (s *nameServer) countTunnel(name string) {
	if len(name) > longName {
		s.counters.dnsLongNames.Add(1)
	}
	if s.tunnels.many(name) {
		s.counters.dnsManyNames.Add(1)
	}
}
