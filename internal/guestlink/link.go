// Package guestlink is the host's side of the link to the agent in a guest:
// typed calls over guestwire, with errors a person can act on.
//
// It knows the agent's methods and nothing of processes, sockets or VMs. A
// client of a shim uses it over its own connection, since a shim passes calls
// through.
package guestlink

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"time"

	"banger"
	"banger/internal/guestwire"
)

// Link makes calls to the guest agent. It is safe for concurrent use.
type Link struct{ conn *guestwire.Conn }

// Over makes calls over a connection that exists.
func Over(conn *guestwire.Conn) *Link { return &Link{conn} }

// Connect begins a link to a freshly booted guest over conn, which the link
// owns from then on. It waits for the agent, however long that takes: closing
// conn ends the wait.
func Connect(conn net.Conn, token [guestwire.TokenLen]byte) (*Link, error) {
	c, err := guestwire.Dial(conn, token, nil)
	if err != nil {
		_ = conn.Close()
		return nil, Error(err)
	}
	return Over(c), nil
}

// Conn is the connection, for streams.
func (l *Link) Conn() *guestwire.Conn { return l.conn }

// Close ends the link and everything on it.
func (l *Link) Close() error { return l.conn.Close() }

// binary is the minor of the wire since which setup and clock are no JSON.
const binary = 1

// Setup makes the guest this VM's own.
func (l *Link) Setup(ctx context.Context, s guestwire.Setup) (r guestwire.SetupResult, err error) {
	if l.conn.Minor() < binary {
		return r, l.call(ctx, guestwire.MethodSetup, s, &r)
	}
	body, err := l.conn.Call(ctx, guestwire.KindSetup, s.Append(nil))
	if err == nil {
		r, err = guestwire.ParseSetupResult(body)
	}
	return r, Error(err)
}

// SetClock sets the guest's clock and says what it was as the guest answered.
func (l *Link) SetClock(ctx context.Context, now time.Time) (time.Time, error) {
	c := guestwire.Clock{TimeNanos: now.UnixNano()}
	if l.conn.Minor() < binary {
		err := l.call(ctx, guestwire.MethodClock, c, &c)
		return time.Unix(0, c.TimeNanos), err
	}
	body, err := l.conn.Call(ctx, guestwire.KindClock, c.Append(nil))
	if err == nil {
		c, err = guestwire.ParseClock(body)
	}
	return time.Unix(0, c.TimeNanos), Error(err)
}

// Clock says what the guest's clock is as it answers: unknown_method where its agent is
// of an earlier build.
func (l *Link) Clock(ctx context.Context) (time.Time, error) {
	var c guestwire.Clock
	err := l.call(ctx, guestwire.MethodTime, nil, &c)
	return time.Unix(0, c.TimeNanos), err
}

// Health asks whether the guest works.
func (l *Link) Health(ctx context.Context) (h guestwire.Health, err error) {
	return h, l.call(ctx, guestwire.MethodHealth, nil, &h)
}

// Stats takes a sample of the guest's use of itself.
func (l *Link) Stats(ctx context.Context) (s guestwire.GuestStats, err error) {
	return s, l.call(ctx, guestwire.MethodStats, nil, &s)
}

// Sync flushes the guest's file systems.
func (l *Link) Sync(ctx context.Context) error {
	return l.call(ctx, guestwire.MethodSync, nil, nil)
}

// Booted waits until the guest's own init has brought it up, and says whether it
// has: the wait is bounded.
func (l *Link) Booted(ctx context.Context) (done bool, err error) {
	var b guestwire.Booted
	err = l.call(ctx, guestwire.MethodBooted, nil, &b)
	return b.Done, err
}

// Unattended asks which commands run with nobody connected to them: unknown_method
// where the agent is of an earlier build.
func (l *Link) Unattended(ctx context.Context) (u guestwire.Unattended, err error) {
	return u, l.call(ctx, guestwire.MethodUnattended, nil, &u)
}

// Shutdown ends the guest's processes within timeout, and then the guest. It
// returns once its file systems are read-only.
func (l *Link) Shutdown(ctx context.Context, timeout time.Duration) error {
	return l.call(ctx, guestwire.MethodShutdown, guestwire.Shutdown{TimeoutMillis: timeout.Milliseconds()}, nil)
}

// Stat asks what a path in the guest is.
func (l *Link) Stat(ctx context.Context, path string) (st guestwire.FileStat, err error) {
	return st, l.call(ctx, guestwire.MethodStat, guestwire.StatRequest{Path: path}, &st)
}

// Put unpacks a tar stream below a directory of the guest. Files become root's.
func (l *Link) Put(ctx context.Context, dir string, from io.Reader) error {
	body, err := json.Marshal(guestwire.Copy{Path: dir})
	if err != nil {
		return err
	}
	s, err := l.conn.Open(guestwire.KindPut, body)
	if err != nil {
		return Error(err)
	}
	defer context.AfterFunc(ctx, s.Reset)()
	to := s.Writer(guestwire.Stdin)
	_, copyErr := io.Copy(to, from)
	if copyErr != nil {
		s.Reset()
	} else {
		_ = to.Close()
	}
	_, err = s.Wait(ctx)
	return Error(errors.Join(err, copyErr))
}

// Changes counts the files of the guest's disk that were changed since a moment
// that it gave before; 0 asks for a moment.
func (l *Link) Changes(ctx context.Context, since int64) (c guestwire.Changed, err error) {
	return c, l.call(ctx, guestwire.MethodChanges, guestwire.Changes{SinceNanos: since}, &c)
}

func (l *Link) call(ctx context.Context, method string, params, result any) error {
	return Call(ctx, l.conn, guestwire.KindCall, method, params, result)
}

// Call makes one call in JSON on a stream of the given kind. A nil result
// drops the answer.
func Call(ctx context.Context, conn *guestwire.Conn, kind guestwire.Kind, method string, params, result any) error {
	body, err := Request(method, params)
	if err != nil {
		return err
	}
	answer, err := conn.Call(ctx, kind, body)
	if err != nil {
		return Error(err)
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(answer, result); err != nil {
		return banger.Errorf(banger.Internal, "cannot read the answer to %s: %w", method, err)
	}
	return nil
}

// Request encodes a call.
func Request(method string, params any) ([]byte, error) {
	c := guestwire.Call{Method: method}
	if params != nil {
		var err error
		if c.Params, err = json.Marshal(params); err != nil {
			return nil, err
		}
	}
	return json.Marshal(c)
}
