package guestlink

import (
	"cmp"
	"context"
	"errors"
	"io"

	"banger"
	"banger/internal/guestwire"
)

// Pipe is a connection to a socket inside a guest. Reads end with io.EOF where
// the other side has ended its half, and with an error where the connection
// broke.
type Pipe struct {
	stream *guestwire.Stream
	in     io.Reader
	out    io.WriteCloser
}

// Dial connects to a TCP address or the path of a unix socket in the guest,
// which resolves names itself: not_found where there is no such name or path,
// unavailable where nobody accepts.
func (l *Link) Dial(ctx context.Context, network, address string) (*Pipe, error) {
	s, err := l.conn.Open(guestwire.KindDial, guestwire.Target{Network: network, Address: address}.Append(nil))
	if err != nil {
		return nil, Error(err)
	}
	if err := awaitConnection(ctx, s); err != nil {
		return nil, tooOld(Error(err), address)
	}
	return newPipe(s), nil
}

func newPipe(s *guestwire.Stream) *Pipe { return &Pipe{stream: s, in: s.Reader(0), out: s.Writer(0)} }

func awaitConnection(ctx context.Context, s *guestwire.Stream) error {
	stop := context.AfterFunc(ctx, s.Reset)
	defer stop()
	for {
		c, ok := s.NextControl()
		switch {
		case ctx.Err() != nil:
			s.Reset()
			return context.Cause(ctx)
		case !ok:
			_, err := s.Wait(ctx)
			return cmp.Or(err, io.ErrUnexpectedEOF)
		case c.Code == guestwire.ControlConnected:
			return nil
		}
	}
}

// tooOld says what can be done about an agent that does not know how to
// connect.
func tooOld(err error, address string) error {
	if banger.CodeOf(err) != banger.UnknownMethod {
		return err
	}
	return banger.Errorf(banger.UnknownMethod, "cannot connect to %s in the guest: its agent is of an earlier build", address).
		Hint("banger vm restart %s starts the newest one", banger.ThisVM)
}

// Read waits for what comes from the guest.
func (p *Pipe) Read(b []byte) (int, error) {
	n, err := p.in.Read(b)
	return n, p.reason(err)
}

// WriteTo copies what comes without a buffer of its own.
func (p *Pipe) WriteTo(w io.Writer) (int64, error) {
	n, err := p.in.(io.WriterTo).WriteTo(w)
	if err == nil {
		err = p.reason(io.EOF)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// reason tells a connection that broke from one that has ended.
func (p *Pipe) reason(err error) error {
	if r := p.stream.Result(); errors.Is(err, io.EOF) && r != nil && !r.OK {
		_, err = p.stream.Wait(context.Background())
	}
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return Error(err)
}

// Write waits until the guest has room.
func (p *Pipe) Write(b []byte) (int, error) {
	n, err := p.out.Write(b)
	return n, Error(err)
}

// CloseWrite ends our half.
func (p *Pipe) CloseWrite() error {
	return p.out.Close()
}

// Close ends the connection. One that has not ended both ways breaks; what was
// written before CloseWrite reaches the guest all the same.
func (p *Pipe) Close() error {
	p.stream.Reset()
	return nil
}
