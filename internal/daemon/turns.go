package daemon

import (
	"context"
	"sync"

	"banger"
)

// turns is one lock per name. Those who wait give up when their context ends.
type turns struct {
	mu    sync.Mutex
	taken map[string]chan struct{} // closed when given back
}

// take waits for a name's turn.
func (t *turns) take(ctx context.Context, name string) (done func(), err error) {
	for {
		done, wait := t.try(name)
		if done != nil {
			return done, nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, banger.Errorf(banger.Cancelled, "it was cancelled while another operation on %s ran: %w", name, context.Cause(ctx))
		}
	}
}

// try takes a name's turn if it is free; else it gives what to wait for.
func (t *turns) try(name string) (done func(), wait <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if other, taken := t.taken[name]; taken {
		return nil, other
	}
	if t.taken == nil {
		t.taken = map[string]chan struct{}{}
	}
	mine := make(chan struct{})
	t.taken[name] = mine
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.taken, name)
		close(mine)
	}, nil
}
