package vm

import (
	"context"
	"sync"
	"time"

	"banger"
	"banger/internal/shim"
)

// live is a VM that has a shim, or is being given one. What the shim says is
// kept here, so that listing asks nobody.
type live struct {
	id string

	mu      sync.Mutex
	client  Shim         // nil until the shim answered
	status  *shim.Status // nil until its first word
	gone    bool         // the shim ended, or left without a word
	changed chan struct{}

	sample   banger.Stats // the last one from outside, zero before the first
	endTried time.Time    // when it was last to be ended for nobody used it
}

func newLive(id string) *live { return &live{id: id, changed: make(chan struct{})} }

// report takes what the shim says. After the end nothing else is news.
func (l *live) report(s shim.Status) {
	l.change(func() {
		if l.status == nil || l.status.State != shim.Ended {
			l.status = &s
		}
	})
}

// finish notes an end that whoever asked for it knows of before the watcher.
func (l *live) finish(exit shim.Exit) {
	last, _, _ := l.seen()
	s := shim.Status{}
	if last != nil {
		s = *last
	}
	s.State, s.Exit = shim.Ended, &exit
	l.report(s)
}

func (l *live) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.changed)
	l.changed = make(chan struct{})
}

// seen is what is known now. The channel is closed when that changes.
func (l *live) seen() (status *shim.Status, gone bool, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status, l.gone, l.changed
}

// ended says whether the VM is known to run no more.
func (l *live) ended() bool {
	status, gone, _ := l.seen()
	return gone || status != nil && status.State == shim.Ended
}

// shim is the connection to it: unavailable while there is none.
func (l *live) shim() (Shim, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client == nil {
		return nil, banger.Errorf(banger.Unavailable, "its shim does not answer").
			Hint("banger vm kill ends the VM")
	}
	return l.client, nil
}

// await waits until the VM is as wanted, and returns its status then: nil if
// it is gone before.
func (l *live) await(ctx context.Context, wanted func(shim.Status) bool) (*shim.Status, error) {
	for {
		status, gone, changed := l.seen()
		switch {
		case gone && (status == nil || status.State != shim.Ended):
			return nil, nil // what it said last is not true any more
		case status != nil && wanted(*status):
			return status, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (m *Manager) put(l *live) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.live[l.id] = l
}

// drop forgets that the VM has a shim.
func (m *Manager) drop(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.live, id)
}

func (m *Manager) liveOf(id string) *live {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.live[id]
}

// goes runs f until it returns; Run waits for it. After Run has ended nothing
// begins any more.
func (m *Manager) goes(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.running.Go(f)
	}
}

// retryPause is how long to wait before a shim that is there but does not
// answer is called again.
const retryPause = 200 * time.Millisecond

// watch follows the shim behind l until it ends, and then records how.
func (m *Manager) watch(l *live) {
	m.goes(func() {
		for client := m.connection(l); client != nil; client = m.connection(l) {
			err := client.Watch(m.ctx, l.report)
			l.change(func() { l.client = nil })
			_ = client.Close()
			if err == nil || m.ctx.Err() != nil {
				break
			}
		}
		if m.ctx.Err() != nil {
			return
		}
		l.change(func() { l.gone = true })
		m.recordGone(l)
	})
}

// connection is the one l has, or a new one; nil once there is no shim. A shim
// can be there and not answer, stopped in a debugger for example: its VM still
// runs.
func (m *Manager) connection(l *live) Shim {
	if client, err := l.shim(); err == nil {
		return client
	}
	for m.ctx.Err() == nil {
		_, alive, err := m.Shims.Alive(m.Dirs.VM(l.id))
		if err == nil && !alive {
			return nil
		}
		if client, err := m.dial(m.ctx, l.id); err == nil {
			l.change(func() { l.client = client })
			return client
		}
		select {
		case <-m.ctx.Done():
		case <-time.After(retryPause):
		}
	}
	return nil
}

func (m *Manager) dial(ctx context.Context, id string) (Shim, error) {
	ctx, cancel := context.WithTimeout(ctx, m.shimTimeout)
	defer cancel()
	return m.Shims.Dial(ctx, m.Dirs.VM(id))
}

// recordGone records the end of a run that nobody is waiting for.
func (m *Manager) recordGone(l *live) {
	unlock, err := m.locks.lock(m.ctx, l.id)
	if err != nil {
		return
	}
	defer unlock()
	if m.liveOf(l.id) != l {
		return // whoever had the lock recorded it
	}
	if err := m.recordEnd(m.ctx, l.id, nil); err != nil {
		m.Log.Error("cannot record the end of a VM", "vm", l.id, "err", err)
	}
}
