// Package client speaks to the banger daemon, and starts it where it does not
// run: a typed method for every route of the API.
//
// It knows how client and daemon meet and nothing of what the daemon does.
// Every error is a *banger.Error.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"

	"banger"
	"banger/internal/api"
	"banger/internal/paths"
)

// Client is a connection to a daemon. Its methods may be called concurrently.
type Client struct {
	http    *http.Client
	dirs    *paths.Dirs // of the daemon, where known
	options Options     // BuildID is empty where another build's daemon is to be left alone
	warn    sync.Once

	mu   sync.Mutex
	idle net.Conn // made by Connect for the first request
	sock string
}

func newClient(conn net.Conn, socket string, dirs *paths.Dirs, o Options) *Client {
	c := &Client{idle: conn, sock: socket, dirs: dirs, options: o}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:        c.dial,
		DisableCompression: true,
	}}
	return c
}

// dial gives the connection that exists already, then new ones.
func (c *Client) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	c.mu.Lock()
	conn, socket := c.idle, c.sock
	c.idle = nil
	c.mu.Unlock()
	if conn != nil {
		return conn, nil
	}
	return dial(ctx, socket)
}

// Close lets go of idle connections.
func (c *Client) Close() {
	c.http.CloseIdleConnections()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle != nil {
		c.idle.Close()
		c.idle = nil
	}
}

// call makes a request and decodes the answer into out, if that is not nil.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		_, _ = io.Copy(io.Discard, resp.Body) // lets the connection be used again
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return c.broken(ctx, err)
	}
	return nil
}

// send makes a request and gives the answer if it is no error. A daemon that
// ends to make way for this build did nothing yet: its successor is asked.
func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body []byte
	if in != nil {
		body = api.Marshal(in)
	}
	resp, err := c.attempt(ctx, method, path, body)
	const tries = 3 // others may start a daemon of yet another build meanwhile
	for n := 1; n < tries && c.gone(ctx, method, resp, err); n++ {
		if err := c.reconnect(ctx); err != nil {
			return nil, err
		}
		resp, err = c.attempt(ctx, method, path, body)
	}
	if err != nil {
		return nil, c.broken(ctx, err)
	}
	return resp, c.check(resp)
}

func (c *Client) attempt(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://banger"+api.Prefix+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.options.BuildID != "" {
		req.Header.Set(api.BuildHeader, c.options.BuildID)
	}
	return c.http.Do(req)
}

// gone says whether the daemon that was asked is no more, has done nothing,
// and another one can be had. Reading can be asked twice in any case.
func (c *Client) gone(ctx context.Context, method string, resp *http.Response, err error) bool {
	if c.options.BuildID == "" || ctx.Err() != nil {
		return false
	}
	if err != nil {
		var op *net.OpError
		return method == http.MethodGet || errors.As(err, &op) && op.Op == "dial"
	}
	if resp.Header.Get(api.RestartHeader) == "" {
		return false
	}
	resp.Body.Close()
	return true
}

func (c *Client) reconnect(ctx context.Context) error {
	conn, socket, err := meet(ctx, *c.dirs, c.options)
	if err != nil {
		return err
	}
	c.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle, c.sock = conn, socket
	return nil
}

// check gives the error in an answer, and notes whose answer it is.
func (c *Client) check(resp *http.Response) error {
	if level := resp.Header.Get(api.LevelHeader); level != api.Level {
		resp.Body.Close()
		return banger.Errorf(banger.BadVersion, "cannot speak to the daemon: it speaks version %s of the API, this banger %s", strconv.Quote(level), api.Level).
			Hint("banger daemon stop --force")
	}
	if theirs := resp.Header.Get(api.BuildHeader); c.options.BuildID != "" && theirs != c.options.BuildID {
		c.warn.Do(func() {
			if c.options.Warn != nil {
				c.options.Warn("the daemon is of another build of banger and busy; it will be replaced when it is idle")
			}
		})
	}
	if resp.StatusCode < 300 {
		return nil
	}
	defer resp.Body.Close()
	var p api.Problem
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&p); err != nil || p.Code == "" {
		return banger.Errorf(banger.Internal, "the daemon answered %s and no reason", resp.Status)
	}
	return p.Err()
}

// broken is the error of a conversation that broke off.
func (c *Client) broken(ctx context.Context, err error) error {
	var known *banger.Error
	switch {
	case errors.As(err, &known):
		return known
	case ctx.Err() != nil:
		return banger.Errorf(banger.Cancelled, "cancelled while waiting for the daemon")
	}
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err // without method and URL
	}
	e := banger.Errorf(banger.Unavailable, "the daemon went away: %w", err)
	if c.dirs != nil {
		return e.Hint("try again; its log is %s", c.dirs.DaemonLog())
	}
	return e
}

// at puts a reference into a path. "." and ".." are written so that nobody
// takes them for directories.
func at(collection, ref, rest string) string {
	escaped := url.PathEscape(ref)
	if ref == "." || ref == ".." {
		escaped = fmt.Sprintf("%.*s", 3*len(ref), "%2E%2E")
	}
	return collection + "/" + escaped + rest
}
