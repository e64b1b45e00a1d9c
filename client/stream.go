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

// undoTime bounds how long a cancelled call waits for the daemon to undo what
// was begun.
const undoTime = 30 * time.Second

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
	beforeAnswer := context.AfterFunc(ctx, hangUp)
	resp, err := c.send(lasting, http.MethodPost, path, in)
	if err != nil {
		if ctx.Err() != nil {
			return c.broken(ctx, err)
		}
		return err
	}
	defer resp.Body.Close()
	lines := json.NewDecoder(resp.Body)
	var first api.Event
	if err := lines.Decode(&first); err != nil {
		return c.broken(ctx, err)
	}
	if !beforeAnswer() {
		return c.broken(ctx, ctx.Err())
	}
	defer context.AfterFunc(ctx, func() { c.undo(first.OperationID, hangUp) })()
	return c.follow(ctx, first, lines, on, out)
}

// undo cancels an operation, and hangs up where that does not end it.
func (c *Client) undo(id string, hangUp func()) {
	bounded, cancel := context.WithTimeout(context.Background(), undoTime)
	defer cancel()
	if c.CancelOperation(bounded, id) != nil {
		hangUp()
		return
	}
	time.AfterFunc(undoTime, hangUp)
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
