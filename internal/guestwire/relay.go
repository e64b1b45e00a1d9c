package guestwire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var errCredit = fmt.Errorf("%w: credit for bytes never sent", ErrProtocol)

// Relay opens a stream on c as the continuation of in, which another
// connection accepted: from then on the two peers speak to each other. Frames
// are passed on as they come, by the goroutine that read them, and credit is
// theirs to give, so nothing is kept here and a relay has neither buffers nor
// goroutines. It takes a write to in's connection that never blocks: it
// happens on c's reading side, where a wait would delay every other stream.
//
// Relay returns when either half ended: nil once the result was passed on, the
// error of the lost half otherwise. If that is c's, ending in is the caller's
// business.
func (c *Conn) Relay(in *Stream) error {
	out := newStream(c, 0, in.Kind, nil)
	out.other, out.direct = in, true
	if err := c.register(out); err != nil {
		return err
	}
	if !in.join(out) {
		c.forget(out)
		return errors.New("cannot relay a stream twice")
	}
	if err := c.w.Write(TypeOpen, append(out.head(), byte(out.Kind)), in.Body); err != nil {
		c.forget(out)
		return err
	}
	for in.handOver(out) {
	}
	select {
	case <-out.done:
		if r := out.Result(); r != nil {
			in.Pass(*r)
			return nil
		}
		return out.Err()
	case <-in.done:
		out.Reset()
		return in.Err()
	}
}

// join sends the credit that comes from now on to out's peer.
func (s *Stream) join(out *Stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.other != nil {
		return false
	}
	s.other = out
	return true
}

// handOver sends what has come so far, and turns to passing frames on directly
// once there is nothing left, when it returns false. The lock is not held
// while writing: a peer that waits for its credit must get it.
func (s *Stream) handOver(out *Stream) (more bool) {
	s.mu.Lock()
	var in [MaxChannels]inbound
	for ch := range s.in {
		held := &s.in[ch]
		in[ch] = *held
		held.consumed += held.size
		held.backlog = backlog{}
		in[ch].eof = held.eof && !held.passed
		held.passed = held.eof
		more = more || in[ch].size > 0 || in[ch].eof
	}
	controls := s.controls
	s.controls = nil
	more = more || len(controls) > 0
	s.direct = !more
	s.mu.Unlock()
	for ch := range in {
		for in[ch].size > 0 {
			piece := in[ch].pop()
			out.send(uint8(ch), piece, false)
			recycle(piece)
		}
		if in[ch].eof {
			out.send(uint8(ch), nil, true)
		}
	}
	for _, c := range controls {
		_ = out.Control(c)
	}
	return more
}

// send writes a frame of data or its end, without asking for credit: the
// sender it came from has.
func (s *Stream) send(channel uint8, data []byte, eof bool) {
	if s.hasEnded() {
		return
	}
	typ := TypeData
	if eof {
		typ = TypeEOF
	}
	// What fails here fails the connection, whose reader says so.
	_ = s.conn.w.Write(typ, append(s.head(), channel), data)
}

// giveBack passes credit for n bytes that came from s's peer back to it.
func (s *Stream) giveBack(channel uint8, n []byte) error {
	s.mu.Lock()
	in := &s.in[channel]
	count := int64(binary.BigEndian.Uint32(n))
	if count > int64(in.consumed) {
		s.mu.Unlock()
		return errCredit
	}
	in.consumed -= int(count)
	s.mu.Unlock()
	if !s.hasEnded() {
		_ = s.conn.w.Write(TypeCredit, append(s.head(), channel), n)
	}
	return nil
}
