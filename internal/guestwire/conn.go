package guestwire

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
)

// ErrClosed is what streams of a connection that ended fail with.
var ErrClosed = errors.New("the connection to the guest agent ended")

// VersionError says that the two sides have no version in common.
type VersionError struct{ Ours, Theirs uint16 }

func (e *VersionError) Error() string {
	return fmt.Sprintf("guest wire version %d is spoken here, %d there", e.Ours, e.Theirs)
}

// Conn carries streams over one byte stream. Either side may open and accept.
type Conn struct {
	rw     io.ReadWriteCloser
	r      *Reader
	w      *Writer
	peer   Hello
	accept func(*Stream)

	greeted chan struct{} // of Begin: closed when peer is known; nil where it was waited for

	mu      sync.Mutex
	streams map[uint32]*Stream
	lastID  uint32
	err     error // why the connection ended
	done    chan struct{}
}

// NewToken makes a token for HELLO.
func NewToken() (t [TokenLen]byte) {
	_, _ = rand.Read(t[:])
	return t
}

// Dial begins the opening side of a connection: it sends HELLO with token and
// waits for the peer's. accept, which may be nil, is called on a goroutine of
// its own for each stream the peer opens.
func Dial(rw io.ReadWriteCloser, token [TokenLen]byte, accept func(*Stream)) (*Conn, error) {
	c := newConn(rw, accept)
	if err := c.w.Write(TypeHello, Hello{Major, Minor, token}.append(nil), nil); err != nil {
		return nil, err
	}
	return c.start()
}

// Begin is Dial without the wait: what is sent meanwhile lies in front of the peer
// when it has answered HELLO, of whatever version it is. A peer that does not speak
// this wire ends the connection, and what was begun on it with the reason.
func Begin(rw io.ReadWriteCloser, token [TokenLen]byte, accept func(*Stream)) (*Conn, error) {
	c := newConn(rw, accept)
	c.greeted = make(chan struct{})
	if err := c.w.Write(TypeHello, Hello{Major, Minor, token}.append(nil), nil); err != nil {
		return nil, err
	}
	go c.runAhead()
	return c, nil
}

// Redial begins a connection to a guest whose last HELLO carried old, and
// gives it a new token.
func Redial(rw io.ReadWriteCloser, old, token [TokenLen]byte, accept func(*Stream)) (*Conn, error) {
	c := newConn(rw, accept)
	if err := c.w.Restart(old, Hello{Major, Minor, token}); err != nil {
		return nil, err
	}
	if err := c.r.SkipTo(old); err != nil {
		return nil, err
	}
	c.r.token = nil
	return c.start()
}

func (c *Conn) start() (*Conn, error) {
	if err := c.readHello(); err != nil {
		return nil, err
	}
	go c.run()
	return c, nil
}

// Serve is the accepting side: it answers HELLO and handles streams until the
// input ends. With resync it starts afresh whenever its peer does, dropping
// all streams, and the connection goes on; a peer that does not speak this
// wire is then ignored until it starts afresh.
func Serve(rw io.ReadWriteCloser, resync bool, accept func(*Stream)) error {
	return Accept(rw, accept).serve(resync)
}

// Accept is the accepting side of a connection that Serve serves, and that somebody else may
// close meanwhile: all streams end then, also while a relay waits.
func Accept(rw io.ReadWriteCloser, accept func(*Stream)) *Conn { return newConn(rw, accept) }

// Serve answers HELLO and handles streams until the input ends.
func (c *Conn) Serve() error { return c.serve(false) }

func (c *Conn) serve(resync bool) error {
	restarted := false
	for {
		err := c.answerHello(resync, restarted)
		if err == nil {
			err = c.readFrames()
		}
		c.dropStreams(err)
		var bad *VersionError
		if resync && c.r.token != nil && (errors.Is(err, ErrProtocol) || errors.As(err, &bad)) {
			if err = c.r.SkipTo(c.peer.Token); err == nil {
				err = ErrResync
			}
		}
		if !errors.Is(err, ErrResync) {
			return c.end(err)
		}
		restarted = true
	}
}

func newConn(rw io.ReadWriteCloser, accept func(*Stream)) *Conn {
	return &Conn{
		rw: rw, r: NewReader(rw), w: NewWriter(rw), accept: accept,
		streams: make(map[uint32]*Stream), done: make(chan struct{}),
	}
}

func (c *Conn) readHello() error {
	typ, p, err := c.r.Next()
	if err != nil {
		return err
	}
	if typ != TypeHello {
		return fmt.Errorf("%w: frame type %d before HELLO", ErrProtocol, typ)
	}
	hello, err := parseHello(p)
	if err != nil {
		return err // and the last peer's token stays known
	}
	c.peer = hello
	if c.peer.Major != Major {
		return &VersionError{Ours: Major, Theirs: c.peer.Major}
	}
	return nil
}

// answerHello reads the peer's HELLO and answers in kind. A version that does
// not fit is answered too, so that the peer can say what is wrong.
func (c *Conn) answerHello(resync, restarted bool) error {
	old := c.peer.Token
	err := c.readHello()
	var bad *VersionError
	if err != nil && !errors.As(err, &bad) {
		return err
	}
	ours := Hello{Major, Minor, c.peer.Token}
	if resync {
		c.r.ScanFor(c.peer.Token)
	}
	if restarted {
		return errors.Join(c.w.Restart(old, ours), err)
	}
	return errors.Join(c.w.Write(TypeHello, ours.append(nil), nil), err)
}

// Minor is the version both sides speak; 0 where the connection ended before that
// was known, for which it waits.
func (c *Conn) Minor() uint16 {
	if c.greeted != nil {
		select {
		case <-c.greeted:
		case <-c.done:
			return 0
		}
	}
	return min(Minor, c.peer.Minor)
}

// Done is closed when the connection has ended; Err says why.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is why the connection ended, or nil while it lives.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection and all its streams.
func (c *Conn) Close() error {
	err := c.rw.Close()
	_ = c.end(ErrClosed)
	return err
}

func (c *Conn) run() { _ = c.end(c.readFrames()) }

func (c *Conn) runAhead() {
	err := c.readHello()
	if err == nil {
		close(c.greeted)
		err = c.readFrames()
	}
	_ = c.end(err)
}

// end records why the connection ended, once, and fails what is open.
func (c *Conn) end(err error) error {
	if err == nil || errors.Is(err, io.EOF) || isGone(err) {
		err = ErrClosed
	}
	c.mu.Lock()
	first := c.err == nil
	if first {
		c.err = err
		close(c.done)
	}
	c.mu.Unlock()
	if first {
		_ = c.rw.Close()
		c.dropStreams(err)
	}
	return err
}

// isGone says whether the peer has left. One that died with something unread before it
// resets its socket.
func isGone(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// unsent is why a frame could not be sent: to a peer that left before it was greeted,
// what it said last, which may not have been read yet.
func (c *Conn) unsent(err error) error {
	if c.greeted == nil || !isGone(err) {
		return err
	}
	<-c.done
	return c.Err()
}

func (c *Conn) dropStreams(err error) {
	c.mu.Lock()
	streams := c.streams
	c.streams = make(map[uint32]*Stream)
	c.mu.Unlock()
	for _, s := range streams {
		s.fail(err)
	}
}

// Open begins a stream of a kind with a request body.
func (c *Conn) Open(kind Kind, body []byte) (*Stream, error) {
	s := newStream(c, 0, kind, nil)
	if err := c.register(s); err != nil {
		return nil, err
	}
	if err := c.w.Write(TypeOpen, append(s.head(), byte(kind)), body); err != nil {
		c.forget(s)
		return nil, c.unsent(err)
	}
	return s, nil
}

// most is how many streams may be open where one of a kind is to join them. Connections,
// of which anybody makes as many as they like, leave room for commands, and these for
// calls: a guest that is full has still to be stopped.
func most(kind Kind) int {
	switch kind {
	case KindCall, KindSetup, KindClock:
		return MaxStreams
	case KindDial, KindAccept:
		return MaxStreams - 2*reserve
	}
	return MaxStreams - reserve
}

// register gives a stream that we open its number.
func (c *Conn) register(s *Stream) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if len(c.streams) >= most(s.Kind) {
		return fmt.Errorf("cannot open another stream: %d are open", len(c.streams))
	}
	c.lastID++
	s.id = c.lastID
	c.streams[s.id] = s
	return nil
}

// Call opens a stream, waits for its result and returns the body.
func (c *Conn) Call(ctx context.Context, kind Kind, body []byte) ([]byte, error) {
	s, err := c.Open(kind, body)
	if err != nil {
		return nil, err
	}
	return s.Wait(ctx)
}

func (c *Conn) forget(s *Stream) {
	c.mu.Lock()
	if c.streams[s.id] == s {
		delete(c.streams, s.id)
	}
	c.mu.Unlock()
}

func (c *Conn) stream(id uint32) *Stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams[id]
}

// readFrames dispatches frames until the input ends or is not this wire. It
// never waits for anything but the input.
func (c *Conn) readFrames() error {
	for {
		typ, p, err := c.r.Next()
		if err != nil {
			return err
		}
		if err := c.dispatch(typ, p); err != nil {
			return err
		}
	}
}

func (c *Conn) dispatch(typ Type, p []byte) error {
	if len(p) < 4 || typ == TypeHello {
		return fmt.Errorf("%w: frame type %d of %d bytes inside a connection", ErrProtocol, typ, len(p))
	}
	id, p := binary.BigEndian.Uint32(p), p[4:]
	if typ == TypeOpen {
		return c.opened(id, p)
	}
	if typ != TypeReset && len(p) < 1 {
		return fmt.Errorf("%w: short frame of type %d", ErrProtocol, typ)
	}
	s := c.stream(id)
	if s == nil {
		return nil
	}
	return s.handle(typ, p)
}

// opened takes a stream that the peer opens, if we take any. One that does not keep to
// the limits is no peer of ours: to tell it so, once for each, would have no limit.
func (c *Conn) opened(id uint32, p []byte) error {
	if len(p) < 1 || id == 0 || c.accept == nil {
		return fmt.Errorf("%w: bad OPEN", ErrProtocol)
	}
	s := newStream(c, id, Kind(p[0]), append([]byte(nil), p[1:]...))
	s.accepted = true
	c.mu.Lock()
	_, taken := c.streams[id]
	full := len(c.streams) >= MaxStreams
	if !taken && !full {
		c.streams[id] = s
	}
	c.mu.Unlock()
	switch {
	case taken:
		return fmt.Errorf("%w: stream %d opened twice", ErrProtocol, id)
	case full:
		return fmt.Errorf("%w: more than %d streams", ErrProtocol, MaxStreams)
	}
	go c.accept(s)
	return nil
}
