package guestlink

import (
	"context"
	"encoding/json"
	"io"

	"banger/internal/guestwire"
)

// Get has use read the tar stream of what c asks for. It is whole only if Get
// returns nil, whatever use has read.
func (l *Link) Get(ctx context.Context, c guestwire.Copy, use func(io.Reader) error) error {
	body, err := json.Marshal(c)
	if err != nil {
		return err
	}
	s, err := l.conn.Open(guestwire.KindGet, body)
	if err != nil {
		return Error(err)
	}
	defer context.AfterFunc(ctx, s.Reset)()
	if err := use(s.Reader(0)); err != nil {
		s.Reset()
		return err
	}
	_, err = s.Wait(ctx)
	return Error(err)
}
