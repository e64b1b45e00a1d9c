// Package tether is a byte stream that outlives the connections it goes over: what was
// under way when one broke goes again over the next. A host and a guest hold its two
// ends where what joins them breaks whenever the guest is saved, as vsock does.
//
// Each new connection begins with a greeting both ways: which session this end is in, and
// how much of it has come. The host's end is a session by itself. A guest that was
// restored meets another one: what it had sent before is forgotten, and both begin to count anew;
// what it has received and not yet read it keeps, as of any stream it was saved with.
//
// It knows nothing of what the bytes mean, and nothing of how a connection is made.
package tether

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"time"
)

// window is how much may be sent that the other end has not read, and ackEvery how much
// it reads before it says so.
const (
	window   = 256 << 10
	ackEvery = 32 << 10
)

// maxWaiting is how much may wait to be read: of one session no more than two windows, one that
// was acknowledged as come by a greeting and one after that, and as much of an earlier one.
const maxWaiting = 4 * window

// ErrClosed is what a closed stream answers.
var ErrClosed = errors.New("the stream is closed")

// Stream is one end. All methods may be called concurrently.
type Stream struct {
	host bool

	mu      sync.Mutex
	changed sync.Cond

	session uint64 // 0 before a guest has met a host

	in    []byte // received, not read
	stale int    // how many of them came in an earlier session
	got   uint64 // received in this session
	told  uint64 // of which the other end knows that they were read

	out  []byte // written, and not known to have come
	base uint64 // of out[0] in this session
	sent uint64

	conn    io.ReadWriteCloser // in use, or nil
	turn    int                // of the last connection that came
	writing bool
	held    bool // nothing is to be sent
	closed  bool
	closing chan struct{} // closed when it is
}

// NewHost is a host's end, in a session of its own.
func NewHost() *Stream {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	return newStream(true, binary.BigEndian.Uint64(id[:])|1)
}

// NewGuest is a guest's end.
func NewGuest() *Stream { return newStream(false, 0) }

func newStream(host bool, session uint64) *Stream {
	s := &Stream{host: host, session: session, closing: make(chan struct{})}
	s.changed.L = &s.mu
	return s
}

// Read waits for bytes of the other end. After Close it gives what had come, then io.EOF.
func (s *Stream) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.in) == 0 && !s.closed {
		s.changed.Wait()
	}
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.in)
	if s.in = s.in[n:]; len(s.in) == 0 {
		s.in = nil
	}
	s.stale = max(0, s.stale-n)
	if s.consumed()-s.told >= ackEvery {
		s.changed.Broadcast()
	}
	return n, nil
}

// consumed is how much of this session was read.
func (s *Stream) consumed() uint64 { return s.got - uint64(len(s.in)-s.stale) }

// Write takes all of p, and waits only while the other end reads nothing.
func (s *Stream) Write(p []byte) (written int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(p) > 0 {
		for len(s.out) >= window && !s.closed {
			s.changed.Wait()
		}
		if s.closed {
			return written, ErrClosed
		}
		n := min(len(p), window-len(s.out))
		s.out = append(s.out, p[:n]...)
		p, written = p[n:], written+n
		s.changed.Broadcast()
	}
	return written, nil
}

// Close ends the stream, and the connection it goes over.
func (s *Stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.closing)
	}
	s.hangUp()
	s.changed.Broadcast()
	return nil
}

// Renew gives up the connection in use for another: where it may be dead at the other end,
// which this one does not hear of.
func (s *Stream) Renew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hangUp()
}

// hangUp closes the connection in use; Serve ends.
func (s *Stream) hangUp() {
	if s.conn != nil {
		_ = s.conn.Close()
	}
}

// patience is how long a frame may take to be sent to an end that should read.
const patience = 200 * time.Millisecond

// Hold has nothing sent from its return on, until Release. The connection stays: what
// comes is received. One that takes no more is given up.
func (s *Stream) Hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = true
	late := time.AfterFunc(patience, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.hangUp()
	})
	defer late.Stop()
	for s.writing {
		s.changed.Wait()
	}
}

// Release ends a Hold, and the connection, of which nobody knows what became meanwhile.
func (s *Stream) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = false
	s.hangUp()
	s.changed.Broadcast()
}
