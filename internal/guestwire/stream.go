package guestwire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// ErrReset is what a stream fails with that its opener abandoned.
var ErrReset = errors.New("the stream was abandoned")

// Stream is one request and what flows in both directions until its result.
type Stream struct {
	Kind Kind
	Body []byte // of OPEN, on the accepting side

	conn     *Conn
	id       uint32
	accepted bool // we accepted it, the peer opened it

	mu       sync.Mutex
	cond     sync.Cond // any change below
	in       [MaxChannels]inbound
	out      [MaxChannels]outbound
	controls []Control
	result   *Result
	err      error
	other    *Stream       // what it is relayed to, or nil (see Conn.Relay)
	direct   bool          // nothing is left to hand over: frames go to other as they come
	ended    bool          // result sent or received, reset, or connection lost
	done     chan struct{} // closed with ended
}

type inbound struct {
	backlog
	consumed int // by the reader or a relay, not yet given back as credit
	eof      bool
	passed   bool // eof was handed to a relay
}

type outbound struct {
	used    int // bytes sent and not yet credited
	eof     bool
	writing sync.Mutex // held while a frame is on its way: EOF may not overtake it
}

// Control is an out-of-band message to a running stream.
type Control struct {
	Code ControlCode
	Body []byte
}

// Result ends a stream.
type Result struct {
	OK   bool
	Body []byte // of the kind's own form, or an error's (see Failure)
}

// maxResult is what a frame's head leaves of its payload.
const maxResult = MaxPayload - 5

func newStream(c *Conn, id uint32, kind Kind, body []byte) *Stream {
	s := &Stream{Kind: kind, Body: body, conn: c, id: id, done: make(chan struct{})}
	s.cond.L = &s.mu
	return s
}

func (s *Stream) head() []byte { return binary.BigEndian.AppendUint32(make([]byte, 0, 16), s.id) }

// Done is closed when the stream has ended in any way.
func (s *Stream) Done() <-chan struct{} { return s.done }

// Err is why the stream ended without a result, or nil.
func (s *Stream) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Ended says whether the peer has sent all of a channel, read or not.
func (s *Stream) Ended(channel uint8) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in[channel].eof
}

// Reader reads one channel. It returns io.EOF after the peer's EOF or the
// stream's result, and the stream's error after a loss.
func (s *Stream) Reader(channel uint8) io.Reader { return channelReader{s, channel} }

// Writer writes one channel, waiting for credit; Close sends EOF.
func (s *Stream) Writer(channel uint8) io.WriteCloser { return channelWriter{s, channel} }

// Wait waits for the result: its body, or the peer's *Failure, or what ended
// the stream. If ctx ends first the stream is abandoned.
func (s *Stream) Wait(ctx context.Context) ([]byte, error) {
	select {
	case <-s.done:
	case <-ctx.Done():
		s.Reset()
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.result == nil:
		return nil, s.err
	case s.result.OK:
		return s.result.Body, nil
	}
	return nil, parseFailure(s.result.Body)
}

// Result is the result as it came, for passing on; nil if there is none.
func (s *Stream) Result() *Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.result
}

// Reset abandons a stream we opened.
func (s *Stream) Reset() {
	if s.finish(nil, ErrReset) {
		_ = s.conn.w.Write(TypeReset, s.head(), nil)
	}
}

// Finish ends a stream we accepted, with success.
func (s *Stream) Finish(body []byte) { s.Pass(Result{OK: true, Body: body}) }

// Fail ends a stream we accepted, with an error of a code, a message and
// remedies.
func (s *Stream) Fail(code, message string, hints ...string) {
	s.Pass(Result{Body: (&Failure{code, message, hints}).append(nil)})
}

// Pass ends a stream we accepted with a result from elsewhere. One that is too long is a
// failure, or the peer would wait for ever.
func (s *Stream) Pass(r Result) {
	if len(r.Body) > maxResult {
		long := Failure{Code: "internal", Message: fmt.Sprintf("the answer has %d bytes, and may have %d", len(r.Body), maxResult)}
		r = Result{Body: long.append(nil)}
	}
	if !s.finish(&r, nil) {
		return
	}
	status := byte(1)
	if r.OK {
		status = 0
	}
	_ = s.conn.w.Write(TypeResult, append(s.head(), status), r.Body)
}

// Control sends an out-of-band message.
func (s *Stream) Control(c Control) error {
	if s.hasEnded() {
		return s.goneErr()
	}
	return s.conn.w.Write(TypeControl, append(s.head(), byte(c.Code)), c.Body)
}

// NextControl waits for a control from the peer; false means the stream
// ended.
func (s *Stream) NextControl() (Control, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.controls) == 0 && !s.ended {
		s.cond.Wait()
	}
	if len(s.controls) == 0 {
		return Control{}, false
	}
	c := s.controls[0]
	s.controls = s.controls[1:]
	return c, true
}

func (s *Stream) hasEnded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

func (s *Stream) goneErr() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	return io.ErrClosedPipe
}

// fail ends the stream because of the connection.
func (s *Stream) fail(err error) { s.finish(nil, err) }

// finish ends the stream once; false means it had ended before.
func (s *Stream) finish(r *Result, err error) bool {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return false
	}
	s.ended, s.result, s.err = true, r, err
	s.cond.Broadcast()
	close(s.done)
	s.mu.Unlock()
	s.conn.forget(s)
	return true
}

// handle takes one frame; it never waits.
func (s *Stream) handle(typ Type, p []byte) error {
	switch typ {
	case TypeData, TypeEOF:
		return s.received(p[0], p[1:], typ == TypeEOF)
	case TypeCredit:
		return s.credited(p)
	case TypeControl:
		if len(p) > 1+maxControl {
			return fmt.Errorf("%w: control of %d bytes", ErrProtocol, len(p)-1)
		}
		return s.controlled(Control{ControlCode(p[0]), append([]byte(nil), p[1:]...)})
	case TypeResult:
		s.finish(&Result{OK: p[0] == 0, Body: append([]byte(nil), p[1:]...)}, nil)
	case TypeReset:
		s.finish(nil, ErrReset)
	}
	return nil
}

func (s *Stream) received(channel uint8, data []byte, eof bool) error {
	if channel >= MaxChannels {
		return fmt.Errorf("%w: channel %d", ErrProtocol, channel)
	}
	to, err := s.keep(channel, data, eof)
	if to != nil {
		to.send(channel, data, eof)
	}
	return err
}

// keep counts what came and keeps it for the reader, or names the stream that
// it goes to instead.
func (s *Stream) keep(channel uint8, data []byte, eof bool) (to *Stream, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := &s.in[channel]
	if in.eof || in.size+in.consumed+len(data) > Window {
		return nil, fmt.Errorf("%w: channel %d overrun", ErrProtocol, channel)
	}
	in.eof = eof
	if s.direct {
		in.consumed += len(data)
		return s.other, nil
	}
	in.push(data)
	s.cond.Broadcast()
	return nil, nil
}

func (s *Stream) credited(p []byte) error {
	if len(p) != 5 || p[0] >= MaxChannels {
		return fmt.Errorf("%w: bad CREDIT", ErrProtocol)
	}
	to, err := s.refill(p[0], binary.BigEndian.Uint32(p[1:]))
	if to != nil {
		return to.giveBack(p[0], p[1:])
	}
	return err
}

// refill takes credit for our writers, or names the stream whose peer it is
// for.
func (s *Stream) refill(channel uint8, n uint32) (to *Stream, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.other != nil {
		return s.other, nil
	}
	out := &s.out[channel]
	if int64(n) > int64(out.used) {
		return nil, errCredit
	}
	out.used -= int(n)
	s.cond.Broadcast()
	return nil, nil
}

func (s *Stream) controlled(c Control) error {
	to, err := s.queueControl(c)
	if to != nil {
		_ = to.Control(c) // it may have ended
	}
	return err
}

func (s *Stream) queueControl(c Control) (to *Stream, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.direct {
		return s.other, nil
	}
	if len(s.controls) >= maxControls {
		return nil, fmt.Errorf("%w: too many controls", ErrProtocol)
	}
	s.controls = append(s.controls, c)
	s.cond.Broadcast()
	return nil, nil
}

type channelReader struct {
	s  *Stream
	ch uint8
}

func (r channelReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	piece, credit, err := r.take(len(p))
	n := copy(p, piece)
	r.release(piece, credit)
	return n, err
}

// WriteTo makes io.Copy write what came as it came, without a copy of its own.
func (r channelReader) WriteTo(w io.Writer) (written int64, err error) {
	for {
		piece, credit, err := r.take(MaxData)
		if errors.Is(err, io.EOF) {
			return written, nil
		}
		if err != nil {
			return written, err
		}
		n, err := w.Write(piece)
		written += int64(n)
		r.release(piece, credit)
		if err != nil {
			return written, err
		}
	}
}

// take gives at most most bytes of what is there, waiting for it, and says how
// much credit to give back: in halves of the window, so that it costs few
// frames.
func (r channelReader) take(most int) (piece []byte, credit int, err error) {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	in := &s.in[r.ch]
	for in.size == 0 {
		if in.eof || s.ended && s.err == nil {
			return nil, 0, io.EOF
		}
		if s.ended {
			return nil, 0, s.err
		}
		s.cond.Wait()
	}
	if piece = in.pop(); len(piece) > most {
		in.unpop(piece[most:])
		piece = piece[:most:most] // the rest of its memory is still to be read
	}
	in.consumed += len(piece)
	if in.consumed >= Window/2 && !in.eof && !s.ended {
		credit, in.consumed = in.consumed, 0
	}
	return piece, credit, nil
}

func (r channelReader) release(piece []byte, credit int) {
	recycle(piece)
	if credit > 0 {
		head := append(r.s.head(), r.ch)
		_ = r.s.conn.w.Write(TypeCredit, binary.BigEndian.AppendUint32(head, uint32(credit)), nil)
	}
}

type channelWriter struct {
	s  *Stream
	ch uint8
}

func (w channelWriter) Write(p []byte) (written int, err error) {
	for len(p) > 0 {
		n, err := w.send(p)
		if err != nil {
			return written, err
		}
		written, p = written+n, p[n:]
	}
	return written, nil
}

// send writes one frame of the beginning of p.
func (w channelWriter) send(p []byte) (n int, err error) {
	out := &w.s.out[w.ch]
	out.writing.Lock()
	defer out.writing.Unlock()
	if n, err = w.reserve(min(len(p), MaxData)); err != nil {
		return 0, err
	}
	return n, w.s.conn.w.Write(TypeData, append(w.s.head(), w.ch), p[:n])
}

// reserve waits for credit and takes up to want bytes of it.
func (w channelWriter) reserve(want int) (int, error) {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &s.out[w.ch]
	for out.used == Window && !s.ended && !out.eof {
		s.cond.Wait()
	}
	switch {
	case s.ended && s.err != nil:
		return 0, s.err
	case s.ended || out.eof:
		return 0, io.ErrClosedPipe
	}
	n := min(want, Window-out.used)
	out.used += n
	return n, nil
}

// Close may be called while a Write waits: that fails then.
func (w channelWriter) Close() error {
	s, out := w.s, &w.s.out[w.ch]
	s.mu.Lock()
	already := out.eof || s.ended
	out.eof = true
	s.cond.Broadcast()
	s.mu.Unlock()
	if already {
		return nil
	}
	out.writing.Lock()
	defer out.writing.Unlock()
	return s.conn.w.Write(TypeEOF, append(s.head(), w.ch), nil)
}
