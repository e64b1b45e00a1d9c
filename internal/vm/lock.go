package vm

import (
	"context"
	"sync"

	"banger"
)

// locks is one lock per key. Those who wait give up when their context ends.
type locks struct {
	mu   sync.Mutex
	held map[string]*keyLock
}

type keyLock struct {
	token chan struct{} // holds one value while the lock is held
	users int           // holders and waiters, under locks.mu
}

// lock takes the lock of key.
func (l *locks) lock(ctx context.Context, key string) (unlock func(), err error) {
	k := l.use(key)
	select {
	case k.token <- struct{}{}:
		return func() {
			<-k.token
			l.release(key, k)
		}, nil
	case <-ctx.Done():
		l.release(key, k)
		return nil, banger.Errorf(banger.Cancelled, "it was cancelled while another operation on this VM ran: %w", context.Cause(ctx))
	}
}

func (l *locks) use(key string) *keyLock {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.held[key]
	if k == nil {
		k = &keyLock{token: make(chan struct{}, 1)}
		if l.held == nil {
			l.held = map[string]*keyLock{}
		}
		l.held[key] = k
	}
	k.users++
	return k
}

func (l *locks) release(key string, k *keyLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k.users--; k.users == 0 {
		delete(l.held, key)
	}
}
