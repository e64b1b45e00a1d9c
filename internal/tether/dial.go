package tether

import (
	"context"
	"io"
	"time"
)

// Pauses between attempts to connect: the other end may not be there yet, or not any more.
const (
	firstPause = time.Millisecond
	lastPause  = 50 * time.Millisecond
)

// Keep has a stream always go over some connection that dial makes: a new one as soon as
// the last broke, until the stream is closed or ctx ends. What a last connection brought
// has been received when it returns. While the stream is held no connection is written to.
func (s *Stream) Keep(ctx context.Context, dial func(context.Context) (io.ReadWriteCloser, error)) {
	defer context.AfterFunc(ctx, s.wake)()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		conn, err := dial(ctx)
		if err == nil {
			met, err := s.serve(ctx, conn)
			switch {
			case err == ErrClosed:
				return
			case met:
				pause = firstPause
			}
		}
		select {
		case <-s.closing:
			return
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func (s *Stream) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed.Broadcast()
}
