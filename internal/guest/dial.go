package guest

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"os"

	"banger/internal/guestwire"

	"golang.org/x/sys/unix"
)

// dial joins a stream to a connection that it makes inside the guest.
func dial(s *guestwire.Stream) {
	t, err := guestwire.ParseTarget(s.Body)
	if err != nil {
		s.Fail("bad_request", err.Error())
		return
	}
	conn, err := connectTo(s, t)
	if err == nil {
		err = connected(s, conn)
	}
	answer(s, nil, err)
}

// connected says that there is a connection and joins it to the stream. The host
// may have gone meanwhile.
func connected(s *guestwire.Stream, conn halfCloser) error {
	if err := s.Control(guestwire.Control{Code: guestwire.ControlConnected}); err != nil {
		_ = conn.Close()
		return err
	}
	return join(s, conn)
}

// halfCloser is what TCP and unix sockets have in common here.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// connectTo connects for as long as the stream is there.
func connectTo(s *guestwire.Stream, t guestwire.Target) (halfCloser, error) {
	if t.Network != "tcp" && t.Network != "unix" {
		return nil, failf("bad_request", "cannot connect to %q in the guest: the network is neither tcp nor unix", t.Address)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-s.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	// Keep-alives would wake an idle guest for nothing.
	conn, err := (&net.Dialer{KeepAlive: -1}).DialContext(ctx, t.Network, t.Address)
	if err != nil {
		return nil, cannotConnect(t, err)
	}
	return conn.(halfCloser), nil
}

func cannotConnect(t guestwire.Target, err error) error {
	var name *net.DNSError
	var address *net.AddrError
	switch {
	case errors.As(err, &name) && name.IsNotFound, errors.Is(err, os.ErrNotExist):
		return failf("not_found", "cannot connect to %s in the guest: there is no such %s", t.Address, whatIs(t))
	case errors.As(err, &address):
		return failf("bad_request", "cannot connect to %s in the guest: %s", t.Address, address.Err)
	case errors.Is(err, unix.ECONNREFUSED):
		return failf("unavailable", "cannot connect to %s in the guest: connection refused", t.Address)
	}
	return failf("unavailable", "cannot connect to %s in the guest: %w", t.Address, systemReason(err))
}

func whatIs(t guestwire.Target) string {
	if t.Network == "unix" {
		return "socket"
	}
	return "name"
}

// join carries bytes both ways until both have ended, or one has broken.
func join(s *guestwire.Stream, conn halfCloser) error {
	go breakOnReset(s, conn)
	sent := make(chan error, 1)
	go func() {
		err := send(conn, s)
		sent <- err
		if err == nil {
			<-s.Done() // the host has ended its half only
		}
		_ = conn.Close() // which wakes receive
	}()
	to := s.Writer(0)
	err := receive(to, conn)
	if err == nil {
		_ = to.Close()
		return broken(<-sent)
	}
	select {
	case first := <-sent:
		err = cmp.Or(first, err)
	default:
	}
	return broken(err)
}

// breakOnReset breaks the connection when the host does, whatever it is that waits for a
// program here which neither reads nor writes. What the host wrote before it ended its
// half is still for the program.
func breakOnReset(s *guestwire.Stream, conn halfCloser) {
	<-s.Done()
	if s.Err() == nil || s.Ended(0) {
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// send carries what the host says. A host that has gone breaks the connection.
func send(conn halfCloser, s *guestwire.Stream) error {
	_, err := io.Copy(conn, s.Reader(0))
	if err == nil {
		err = conn.CloseWrite()
	} else if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	if errors.Is(err, unix.ENOTCONN) {
		return nil // the other side has closed too
	}
	return err
}

// receive carries what the guest's side says.
func receive(to io.Writer, conn net.Conn) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := conn.Read(*buf)
		if n > 0 {
			if _, err := to.Write((*buf)[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func broken(err error) error {
	if err == nil {
		return nil
	}
	return failf("unavailable", "the connection inside the guest broke: %w", systemReason(err))
}

// systemReason is what the kernel said, without the addresses around it.
func systemReason(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
