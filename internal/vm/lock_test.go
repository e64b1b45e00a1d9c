package vm

import (
	"context"
	"sync"
	"testing"

	"banger"
)

func TestLockIsPerKeyAndExclusive(t *testing.T) {
	var l locks
	unlock, err := l.lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.lock(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	other()
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.lock(done, "a"); banger.CodeOf(err) != banger.Cancelled {
		t.Errorf("got %v", err)
	}
	unlock()
	if len(l.held) != 0 {
		t.Errorf("%d locks are remembered", len(l.held))
	}
}

func TestLockAdmitsOneAtATime(t *testing.T) {
	var l locks
	var all sync.WaitGroup
	n := 0
	for range 50 {
		all.Go(func() {
			unlock, err := l.lock(t.Context(), "a")
			if err != nil {
				t.Error(err)
				return
			}
			defer unlock()
			n++ // the race detector watches
		})
	}
	all.Wait()
	if n != 50 {
		t.Error(n)
	}
}
