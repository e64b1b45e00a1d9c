package main

import (
	"encoding/binary"
	"fmt"
	"sync"
)

// sweeper goes over its memory again and again and leaves a number in each
// page, one higher in every round: at any moment all pages before it have this
// round's, and all behind it the last one's. It writes as little as makes a
// page another, so that nothing is faster.
type sweeper struct {
	memory []byte

	mu    sync.Mutex
	round uint64
	next  int // page
	err   error
}

// pagesPerSweep is how many pages are written with the lock held once.
const pagesPerSweep = 256

func newSweeper(mib int) (*sweeper, error) {
	memory, err := anonymous(mib << 20)
	if err != nil {
		return nil, err
	}
	s := &sweeper{memory: memory}
	s.sweep(len(memory) / pageSize) // have all pages before anybody looks
	go func() {
		for s.sweep(pagesPerSweep) {
		}
	}()
	return s, nil
}

// sweep looks at each page before it writes to it, and goes on until one is wrong.
func (s *sweeper) sweep(pages int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range pages {
		if s.next == 0 {
			s.round++
		}
		if s.err == nil {
			s.err = s.checkPage(s.next, s.round-1)
		}
		if s.err != nil {
			return false
		}
		binary.LittleEndian.PutUint64(s.memory[s.next*pageSize:], s.round)
		s.next = (s.next + 1) % (len(s.memory) / pageSize)
	}
	return true
}

func (s *sweeper) checkPage(i int, want uint64) error {
	if got := binary.LittleEndian.Uint64(s.memory[i*pageSize:]); got != want {
		return fmt.Errorf("page %d is of round %d, not %d", i, got, want)
	}
	return nil
}

func (s *sweeper) check() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range len(s.memory) / pageSize {
		want := s.round
		if s.next != 0 && i >= s.next {
			want--
		}
		if s.err == nil {
			s.err = s.checkPage(i, want)
		}
	}
	return fmt.Sprintf("ok %d", s.round), s.err
}
