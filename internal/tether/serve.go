package tether

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The greeting: a magic word, the session, what has come of it.
const (
	magic       = "tether/1"
	greetingLen = len(magic) + 16
)

// A frame is a header, kind and length, and that many bytes: of the stream, or the count
// of those that were read.
const (
	headerLen = 4
	kindData  = 0
	kindRead  = 1
	maxData   = 32 << 10
)

var errSuperseded = errors.New("there is another connection")

// Serve has the stream go over a connection until that breaks, which is its error, and
// closes it. One that was in use before is given up. While the stream is held it waits,
// until another one comes.
func (s *Stream) Serve(conn io.ReadWriteCloser) error {
	_, err := s.serve(context.Background(), conn)
	return err
}

// serve says, too, whether the other end was one.
func (s *Stream) serve(ctx context.Context, conn io.ReadWriteCloser) (met bool, _ error) {
	if err := s.take(ctx, conn); err != nil {
		_ = conn.Close()
		return false, err
	}
	in := bufio.NewReaderSize(conn, headerLen+maxData)
	err := s.greet(conn, in)
	if met = err == nil; met {
		sending := make(chan struct{})
		go func() {
			defer close(sending)
			_ = s.send(conn)
			_ = conn.Close() // has the receiving end too
		}()
		err = s.receive(in)
		s.drop(conn)
		<-sending
	}
	s.release(conn)
	return met, err
}

// take makes conn the one in use. It waits no longer than ctx, where that wakes it.
func (s *Stream) take(ctx context.Context, conn io.ReadWriteCloser) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn++
	mine := s.turn
	s.changed.Broadcast()
	for (s.conn != nil || s.held) && !s.closed && s.turn == mine && ctx.Err() == nil {
		if !s.held {
			s.hangUp()
		}
		s.changed.Wait()
	}
	switch {
	case s.closed:
		return ErrClosed
	case s.turn != mine:
		return errSuperseded
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	s.conn, s.writing = conn, true // the greeting
	return nil
}

// drop closes conn and wakes its sender.
func (s *Stream) drop(conn io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = conn.Close()
	s.conn = dead{}
	s.changed.Broadcast()
}

// dead is a connection that is in use no longer, and whose Serve has not ended.
type dead struct{ io.ReadWriter }

func (dead) Close() error { return nil }

func (s *Stream) release(conn io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = conn.Close()
	s.conn = nil
	s.changed.Broadcast()
}

// greet exchanges greetings and settles what goes again.
func (s *Stream) greet(conn io.Writer, in io.Reader) error {
	s.mu.Lock()
	mine := binary.BigEndian.AppendUint64([]byte(magic), s.session)
	mine = binary.BigEndian.AppendUint64(mine, s.got)
	s.mu.Unlock()
	_, err := conn.Write(mine)
	s.written()
	if err != nil {
		return err
	}
	var its [greetingLen]byte
	if _, err := io.ReadFull(in, its[:]); err != nil {
		return err
	}
	if string(its[:len(magic)]) != magic {
		return fmt.Errorf("the other end says %q", its[:len(magic)])
	}
	return s.settle(binary.BigEndian.Uint64(its[len(magic):]), binary.BigEndian.Uint64(its[len(magic)+8:]))
}

// settle is told the other end's session, and how much has come there.
func (s *Stream) settle(session, came uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if session != s.session {
		s.beginAnew(session)
		return nil
	}
	if came < s.base || came > s.base+uint64(len(s.out)) {
		return fmt.Errorf("the other end has %d bytes, of %d to %d", came, s.base, s.base+uint64(len(s.out)))
	}
	s.sent = came
	s.forget(came)
	return nil
}

// beginAnew begins a session. What a host has to say nobody has heard yet; what a guest
// had said was for another host, if it has met one.
func (s *Stream) beginAnew(session uint64) {
	if !s.host && s.session != 0 {
		s.out = nil
	}
	if !s.host {
		s.session = session
	}
	s.base, s.sent, s.got, s.told, s.stale = 0, 0, 0, 0, len(s.in)
	s.changed.Broadcast()
}

// forget drops what has come.
func (s *Stream) forget(upTo uint64) {
	if upTo <= s.base {
		return
	}
	if s.out = s.out[upTo-s.base:]; len(s.out) == 0 {
		s.out = nil
	}
	s.base = upTo
	s.changed.Broadcast()
}

// send sends what is to be sent, until the connection is no longer in use.
func (s *Stream) send(conn io.ReadWriteCloser) error {
	frame := make([]byte, 0, headerLen+maxData)
	for {
		var more bool
		if frame, more = s.next(conn, frame[:0]); !more {
			return errSuperseded
		}
		_, err := conn.Write(frame)
		s.written()
		if err != nil {
			return err
		}
	}
}

func (s *Stream) written() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = false
	s.changed.Broadcast()
}

// next waits for something to send and gives it as frames.
func (s *Stream) next(conn io.ReadWriteCloser, frame []byte) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.conn != conn || s.closed {
			return nil, false
		}
		if s.held {
			s.changed.Wait()
			continue
		}
		if read := s.consumed(); read-s.told >= ackEvery {
			s.told, s.writing = read, true
			return binary.BigEndian.AppendUint64(append(frame, header(kindRead, 8)...), read), true
		}
		if n := min(maxData, int(s.base+uint64(len(s.out))-s.sent)); n > 0 {
			at := s.sent - s.base
			s.sent, s.writing = s.sent+uint64(n), true
			return append(append(frame, header(kindData, n)...), s.out[at:at+uint64(n)]...), true
		}
		s.changed.Wait()
	}
}

func header(kind byte, n int) []byte {
	return binary.BigEndian.AppendUint32(nil, uint32(kind)<<24|uint32(n))
}

// receive takes frames until the connection ends.
func (s *Stream) receive(in io.Reader) error {
	buf := make([]byte, maxData)
	for {
		var head [headerLen]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return err
		}
		kind, n := head[0], int(binary.BigEndian.Uint32(head[:])&0xffffff)
		if n > maxData {
			return fmt.Errorf("a frame of %d bytes", n)
		}
		if _, err := io.ReadFull(in, buf[:n]); err != nil {
			return err
		}
		if err := s.accept(kind, buf[:n]); err != nil {
			return err
		}
	}
}

// accept takes one frame.
func (s *Stream) accept(kind byte, b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case kind == kindRead && len(b) == 8:
		upTo := binary.BigEndian.Uint64(b)
		if upTo > s.sent {
			return fmt.Errorf("the other end has read %d bytes of %d", upTo, s.sent)
		}
		s.forget(upTo)
	case kind == kindData && len(s.in)+len(b) <= maxWaiting:
		s.in = append(s.in, b...)
		s.got += uint64(len(b))
		s.changed.Broadcast()
	default:
		return fmt.Errorf("a frame of kind %d with %d bytes", kind, len(b))
	}
	return nil
}
