package guest

import (
	"bytes"
	"io"
	"slices"
	"sync"
	"time"

	"banger/internal/guestwire"
)

const (
	// settleTime lets a socket that begins to listen be found, and a program
	// that opens several open them all.
	settleTime = 20 * time.Millisecond

	// tellInterval is how often listeners are looked for in the long run, and
	// tellBurst how many times at once.
	tellInterval = time.Second
	tellBurst    = 4
)

// listeners tells hosts of the sockets that listen. It looks when the kernel says
// that one does or does not any more: while nothing changes it costs nothing.
// Where the kernel cannot say so it looks every tellInterval.
type listeners struct {
	mu      sync.Mutex
	changed chan struct{} // closed at the next change; nil where the kernel is not asked yet
	traced  bool
	owners  map[uint32]owner // by the socket's inode, of those that listened last
}

// tell follows the listeners for a stream. A stream of the host before a
// restore ends without a trace: nothing has to be undone in the way of the next.
func (l *listeners) tell(s *guestwire.Stream) {
	var last []byte
	for p := (pace{}); ; p.wait(s.Done()) {
		changed := l.nextChange()
		all, err := l.look()
		if err != nil {
			s.Fail("internal", "cannot look for listeners in the guest: "+err.Error())
			return
		}
		if last, err = l.report(s.Writer(0), all, last); err != nil {
			return
		}
		select {
		case <-changed:
		case <-s.Done():
			return
		}
	}
}

// report tells of listeners where they are not those of the last time.
func (l *listeners) report(w io.Writer, all []guestwire.Listener, last []byte) ([]byte, error) {
	var now bytes.Buffer
	if err := guestwire.WriteListeners(&now, all); err != nil {
		return nil, err
	}
	if bytes.Equal(now.Bytes(), last) {
		return last, nil
	}
	_, err := w.Write(now.Bytes())
	return now.Bytes(), err
}

// pace keeps looking from becoming the guest's main business: it happens at once,
// and once a tellInterval where there is always something new.
type pace struct{ paid time.Time }

func (p *pace) wait(done <-chan struct{}) {
	now := time.Now()
	p.paid = p.paid.Add(tellInterval)
	if least := now.Add(-(tellBurst - 1) * tellInterval); p.paid.Before(least) {
		p.paid = least
	}
	timer := time.NewTimer(max(settleTime, p.paid.Sub(now)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-done:
	}
}

// nextChange gives a channel that is closed when what look finds may be out of
// date.
func (l *listeners) nextChange() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
		l.traced = traceListeners(l.note) == nil
		go prepareDrop() // soon after a boot, when nobody waits
	}
	if !l.traced {
		later := make(chan struct{})
		time.AfterFunc(tellInterval, func() { close(later) })
		return later
	}
	return l.changed
}

func (l *listeners) note() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
}

// look finds the sockets that listen, and who has them.
func (l *listeners) look() ([]guestwire.Listener, error) {
	sockets, err := listeningSockets()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.owners = ownersOf(sockets, l.owners)
	all := make([]guestwire.Listener, 0, len(sockets))
	for _, s := range sockets {
		o := l.owners[s.inode]
		all = append(all, guestwire.Listener{Address: s.address, PID: o.pid, Process: o.name})
	}
	slices.SortFunc(all, func(x, y guestwire.Listener) int { return x.Address.Compare(y.Address) })
	return slices.Compact(all), nil
}
