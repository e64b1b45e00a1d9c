package guestlink

import (
	"context"

	"banger/internal/guestwire"
)

// Listeners calls f with the guest's TCP sockets that listen, at once and at each
// change, until ctx ends, the link is lost, or the guest cannot say: an agent of
// an earlier build refuses with unknown_method.
func (l *Link) Listeners(ctx context.Context, f func([]guestwire.Listener)) error {
	s, err := l.conn.Open(guestwire.KindListeners, nil)
	if err != nil {
		return Error(err)
	}
	defer context.AfterFunc(ctx, s.Reset)()
	defer s.Reset()
	for from := s.Reader(0); ; {
		all, err := guestwire.ReadListeners(from)
		if ctx.Err() != nil {
			return Error(context.Cause(ctx))
		}
		if err != nil {
			if _, ended := s.Wait(ctx); ended != nil {
				err = ended
			}
			return Error(err)
		}
		f(all)
	}
}
