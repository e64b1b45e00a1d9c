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
	token    chan struct{} // holds one value while the lock is held
	users    int           // holders and waiters, under locks.mu
	yield    func()        // asks the holder to give way; nil for one that does not
	enders   int           // those who wait to end what the key is
	breakOff func()        // ends the holder's work, for them; nil for one that is not broken off
}

// errEnded is why work was broken off.
var errEnded = banger.Errorf(banger.Cancelled, "it was killed or deleted meanwhile")

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

// lockIdle is lock for work that can be broken off: its ctx ends when somebody
// else comes for the lock.
func (l *locks) lockIdle(ctx context.Context, key string) (_ context.Context, unlock func(), err error) {
	release, err := l.lock(ctx, key)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.held[key]
	if k.yield = cancel; k.users > 1 {
		cancel()
	}
	return ctx, func() {
		l.mu.Lock()
		k.yield = nil
		l.mu.Unlock()
		cancel()
		release()
	}, nil
}

// lockWork is lock for work of which nothing is wanted once somebody comes to end
// what the key is: its ctx ends then, with errEnded.
func (l *locks) lockWork(ctx context.Context, key string) (_ context.Context, unlock func(), err error) {
	release, err := l.lock(ctx, key)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.held[key]
	if k.breakOff = func() { cancel(errEnded) }; k.enders > 0 {
		k.breakOff()
	}
	return ctx, func() {
		l.mu.Lock()
		k.breakOff = nil
		l.mu.Unlock()
		cancel(nil)
		release()
	}, nil
}

// lockEnd is lock for who ends what the key is: work on it is broken off. busy
// runs first where there is some.
func (l *locks) lockEnd(ctx context.Context, key string, busy func()) (unlock func(), err error) {
	k := l.use(key)
	defer l.release(key, k)
	l.mu.Lock()
	k.enders++
	working := k.breakOff != nil
	if working {
		k.breakOff()
	}
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		k.enders--
		l.mu.Unlock()
	}()
	if working {
		busy()
	}
	return l.lock(ctx, key)
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
	if k.yield != nil {
		k.yield()
	}
	return k
}

func (l *locks) release(key string, k *keyLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k.users--; k.users == 0 {
		delete(l.held, key)
	}
}
