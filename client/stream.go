package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"banger/internal/api"
)

// How long a cancelled call waits for the daemon to say that an operation
// has begun, and to undo it.
const (
	answerTime = 5 * time.Second
	undoTime   = 30 * time.Second
)

// Watch hears the events of an operation but for its end, on the goroutine
// of the call. It may be nil.
type Watch func(api.Event)

// stream runs an operation to its end. When ctx ends, the operation is
// cancelled and the call waits until it is undone, so that the caller can say
// that nothing remains.
func (c *Client) stream(ctx context.Context, path string, in any, on Watch, out any) error {
	if on == nil {
		on = func(api.Event) {}
	}
	// The connection is kept for the daemon's last word.
	lasting, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	defer hangUp()
	begun := make(chan string, 1)
	defer context.AfterFunc(ctx, func() { c.undo(lasting, begun, hangUp) })()

	resp, err := c.send(lasting, http.MethodPost, path, in)
	if err == nil {
		defer resp.Body.Close()
		lines := json.NewDecoder(resp.Body)
		var first api.Event
		if err = lines.Decode(&first); err == nil {
			begun <- first.OperationID
			return c.follow(ctx, first, lines, on, out)
		}
	}
	return c.broken(ctx, err)
}

// undo cancels the operation that has begun or is about to, and hangs up
// where that does not end it.
func (c *Client) undo(lasting context.Context, begun <-chan string, hangUp func()) {
	defer hangUp()
	select {
	case id := <-begun:
		bounded, cancel := context.WithTimeout(lasting, undoTime)
		defer cancel()
		if c.CancelOperation(bounded, id) == nil {
			<-bounded.Done() // ended by the call's return, if all goes well
		}
	case <-time.After(answerTime):
	case <-lasting.Done():
	}
}

// follow reads events until the one that ends the operation.
func (c *Client) follow(ctx context.Context, e api.Event, lines *json.Decoder, on Watch, out any) error {
	for {
		if e.Error != nil {
			return e.Error.Err()
		}
		if e.Result != nil {
			return json.Unmarshal(e.Result, out)
		}
		on(e)
		e = api.Event{}
		if err := lines.Decode(&e); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return c.broken(ctx, err)
		}
	}
}
