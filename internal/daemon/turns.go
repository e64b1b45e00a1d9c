package daemon

import (
	"context"
	"sync"

	"banger"
)

// turns is one lock per name. Those who wait give up when their context ends.
type turns struct {
	mu    sync.Mutex
	taken map[string]held
}

// held is a turn that somebody has.
type held struct {
	by   string        // the operation, "" where it is none
	back chan struct{} // closed when it is given back
}

func (h held) holder() string {
	if h.by == "" {
		return "another request"
	}
	return "the operation " + h.by
}

// take waits for a name's turn.
func (t *turns) take(ctx context.Context, name string) (done func(), err error) {
	for {
		done, other := t.try(name, operationIn(ctx))
		if done != nil {
			return done, nil
		}
		select {
		case <-other.back:
		case <-ctx.Done():
			return nil, banger.Errorf(banger.Cancelled, "it was cancelled while another operation on %s ran: %w", name, context.Cause(ctx))
		}
	}
}

// try takes a name's turn for an operation, if it is free; else it says whose it is.
func (t *turns) try(name, by string) (done func(), other held) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if other, taken := t.taken[name]; taken {
		return nil, other
	}
	if t.taken == nil {
		t.taken = map[string]held{}
	}
	mine := held{by, make(chan struct{})}
	t.taken[name] = mine
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.taken, name)
		close(mine.back)
	}, held{}
}
