package shim

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"syscall"
	"time"

	"banger"
	"banger/internal/guestlink"
	"banger/internal/guestwire"
	"banger/internal/paths"
)

// Client speaks to one shim. It is safe for concurrent use. All errors have
// codes; unavailable means that the shim is gone.
type Client struct{ conn *guestwire.Conn }

// Dial connects to the shim of the VM in dir: not_running where there is none.
func Dial(ctx context.Context, dir paths.VM) (*Client, error) {
	nc, err := dialSocket(ctx, dir)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
	conn, err := guestwire.Dial(nc, guestwire.NewToken(), nil)
	if !stop() && err == nil {
		_ = conn.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = nc.Close()
		return nil, banger.Wrap(guestlink.Error(err), "cannot reach the VM's shim")
	}
	return &Client{conn}, nil
}

// DialAhead is Dial for what is asked at once, which spares it a round trip: a shim
// that is of another version, or ends just now, is the error of what is asked.
func DialAhead(ctx context.Context, dir paths.VM) (*Client, error) {
	nc, err := dialSocket(ctx, dir)
	if err != nil {
		return nil, err
	}
	conn, err := guestwire.Begin(nc, guestwire.NewToken(), nil)
	if err != nil {
		_ = nc.Close()
		return nil, banger.Wrap(guestlink.Error(err), "cannot reach the VM's shim")
	}
	return &Client{conn}, nil
}

// Conn is the connection, for streams to the guest (KindExec, KindPut,
// KindGet). They wait for a guest that is still booting.
func (c *Client) Conn() *guestwire.Conn { return c.conn }

// Guest makes calls to the guest's agent through the shim.
func (c *Client) Guest() *guestlink.Link { return guestlink.Over(c.conn) }

// Close ends the connection and everything on it, ownership included.
func (c *Client) Close() error { return c.conn.Close() }

// Status asks how the VM is.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.call(ctx, methodStatus, nil, &s)
}

// Watch calls f with the present status and then at each change; changes that
// come faster than f takes them are merged. It returns nil once f saw Ended,
// and an error when ctx ends or the shim is lost.
func (c *Client) Watch(ctx context.Context, f func(Status)) error {
	s, err := c.open(methodWatch)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, s.Reset)()
	defer s.Reset()
	for lines := json.NewDecoder(s.Reader(report)); ; {
		var st Status
		err := lines.Decode(&st)
		switch {
		case ctx.Err() != nil:
			return guestlink.Error(ctx.Err())
		case errors.Is(err, io.EOF):
			_, err = s.Wait(ctx)
			return guestlink.Error(err)
		case err != nil:
			return guestlink.Error(err)
		}
		f(st)
		if st.State == Ended {
			return nil
		}
	}
}

// Stop ends the VM in good order, its processes within timeout, and returns
// when the VMM is gone. A VM that does not end is killed soon after timeout,
// which begins when no Save or Suspend is under way any more.
func (c *Client) Stop(ctx context.Context, timeout time.Duration) (e Exit, err error) {
	return e, c.call(ctx, methodStop, stopRequest{TimeoutMillis: timeout.Milliseconds()}, &e)
}

// StopIdle is Stop of a VM that has not been used for that long: busy, with nothing
// done, where it has. Whoever comes to use it is let in before that is decided, or
// refused after.
func (c *Client) StopIdle(ctx context.Context, timeout, idle time.Duration) (e Exit, err error) {
	return e, c.call(ctx, methodStop, stopRequest{timeout.Milliseconds(), ifIdle(idle)}, &e)
}

// Kill sends KILL, TERM or INT to the VMM and returns when it is gone.
func (c *Client) Kill(ctx context.Context, sig syscall.Signal) (e Exit, err error) {
	return e, c.call(ctx, methodKill, killRequest{int(sig)}, &e)
}

// Pause halts the VM. Idempotent.
func (c *Client) Pause(ctx context.Context) error { return c.call(ctx, methodPause, nil, nil) }

// Resume lets a paused VM run and sets its clock. Idempotent.
func (c *Client) Resume(ctx context.Context) error { return c.call(ctx, methodResume, nil, nil) }

// Save writes the VM's machine and disk into a directory, from which any number
// of others can be restored. The VM runs on, or stays paused; its guest must be
// up, else unavailable. A client that leaves ends the Save. A Save that fails
// leaves nothing in the directory, and Memory in any state.
func (c *Client) Save(ctx context.Context, r SaveRequest) (saved Saved, err error) {
	return saved, c.call(ctx, methodSave, r, &saved)
}

// Suspend saves the VM's machine in the VM's directory and ends the VMM, whose
// end it returns. A Suspend that fails leaves nothing, and the VM as it was.
// It goes on if the client leaves.
func (c *Client) Suspend(ctx context.Context) (e Exit, err error) {
	return e, c.call(ctx, methodSuspend, nil, &e)
}

// SuspendIdle is Suspend of a VM that has not been used for that long: busy where it
// has. One that is used while it is being saved runs on.
func (c *Client) SuspendIdle(ctx context.Context, idle time.Duration) (e Exit, err error) {
	return e, c.call(ctx, methodSuspend, suspendRequest{ifIdle(idle)}, &e)
}

// GrowDisk tells the VMM that the file behind a disk was enlarged, and the
// guest to use it.
func (c *Client) GrowDisk(ctx context.Context, serial string, size int64) error {
	return c.call(ctx, methodGrow, growRequest{serial, size}, nil)
}

// Allow changes what the guest may reach, at once, and says how many connections
// that ended.
func (c *Client) Allow(ctx context.Context, r Reach) (ended int, err error) {
	var a allowed
	err = c.call(ctx, methodAllow, r, &a)
	return a.Ended, err
}

// OpenProxy lets a guest that may reach the internet reach the host's proxies too,
// which rules name, until it ends or may no longer. A shim that has no such call
// answers unknown_method.
func (c *Client) OpenProxy(ctx context.Context, rules []string) error {
	return c.call(ctx, methodProxy, proxyRequest{rules}, nil)
}

// Network tells what the guest reached and what it was refused.
func (c *Client) Network(ctx context.Context) (n NetworkReport, err error) {
	return n, c.call(ctx, methodNetwork, nil, &n)
}

// Explain says in one line what the guest was refused since a moment, and which
// flag allows it; "" where it was refused nothing.
func (c *Client) Explain(ctx context.Context, since time.Time) (string, error) {
	var e explained
	err := c.call(ctx, methodExplain, explainRequest{since}, &e)
	return e.Line, err
}

// Ports says where what listens in the guest is on the host.
func (c *Client) Ports(ctx context.Context) (all []banger.Port, err error) {
	return all, c.call(ctx, methodPorts, nil, &all)
}

// Keep makes an ephemeral VM an ordinary one.
func (c *Client) Keep(ctx context.Context) error { return c.call(ctx, methodKeep, nil, nil) }

// Touch says that the VM is being used. Streams to the guest touch by
// themselves.
func (c *Client) Touch(ctx context.Context) error { return c.call(ctx, methodTouch, nil, nil) }

// Own makes this connection an owner of the VM until it closes: an ephemeral
// VM ends with its last owner, whatever ends that.
func (c *Client) Own(ctx context.Context) error {
	s, err := c.open(methodOwn)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, s.Reset)
	_, err = bufio.NewReaderSize(s.Reader(report), 16).ReadByte()
	if !stop() {
		return guestlink.Error(ctx.Err())
	}
	if errors.Is(err, io.EOF) {
		_, err = s.Wait(ctx)
	}
	return guestlink.Error(err)
}

func (c *Client) open(method string) (*guestwire.Stream, error) {
	body, err := guestlink.Request(method, nil)
	if err != nil {
		return nil, err
	}
	s, err := c.conn.Open(guestwire.KindShim, body)
	return s, guestlink.Error(err)
}

func (c *Client) call(ctx context.Context, method string, params, result any) error {
	return guestlink.Call(ctx, c.conn, guestwire.KindShim, method, params, result)
}
