package guestlink

import (
	"context"
	"net"

	"banger"
	"banger/internal/guestwire"
)

// Listener is a socket inside a guest that is answered here.
type Listener struct {
	Address string // where it listens, in the guest
	link    *Link
	stream  *guestwire.Stream
}

// Listen has the guest listen until Close.
func (l *Link) Listen(ctx context.Context, r guestwire.Listen) (*Listener, error) {
	s, err := l.conn.Open(guestwire.KindListen, r.Append(nil))
	if err != nil {
		return nil, Error(err)
	}
	stop := context.AfterFunc(ctx, s.Reset)
	defer stop()
	c, ok := s.NextControl()
	if !ok {
		_, err := s.Wait(ctx)
		return nil, oldListen(Error(err), r)
	}
	return &Listener{string(c.Body), l, s}, nil
}

func oldListen(err error, r guestwire.Listen) error {
	if banger.CodeOf(err) != banger.UnknownMethod {
		return err
	}
	return banger.Errorf(banger.UnknownMethod, "cannot listen at %s in the guest: its agent is of an earlier build", r.Address).
		Hint("banger vm restart %s starts the newest one", banger.ThisVM)
}

// Accept waits for a connection: net.ErrClosed after Close.
func (l *Listener) Accept(ctx context.Context) (*Pipe, error) {
	for {
		c, ok := l.stream.NextControl()
		if !ok {
			return nil, net.ErrClosed
		}
		if c.Code != guestwire.ControlIncoming {
			continue
		}
		s, err := l.link.conn.Open(guestwire.KindAccept, c.Body)
		if err != nil {
			return nil, Error(err)
		}
		if awaitConnection(ctx, s) == nil {
			return newPipe(s), nil
		} // else it left before we came
	}
}

// Close ends the listening. Connections that were accepted live on.
func (l *Listener) Close() { l.stream.Reset() }
