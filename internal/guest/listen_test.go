package guest

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"banger"
	"banger/internal/guestlink"
	"banger/internal/guestwire"
)

func (a *served) listen(t *testing.T, network, address string) *guestlink.Listener {
	t.Helper()
	l, err := guestlink.Over(a.Conn).Listen(t.Context(), guestwire.Listen{Network: network, Address: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func TestConnectionsInTheGuestAreAnsweredByTheHost(t *testing.T) {
	a := serveAgent(t)
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(a.dir, "socket")} {
		l := a.listen(t, network, address)
		guest, err := net.Dial(network, l.Address)
		if err != nil {
			t.Fatal(err)
		}
		defer guest.Close()
		host, err := l.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = guest.Write([]byte("question"))
		_ = guest.(halfCloser).CloseWrite()
		if got, err := io.ReadAll(host); err != nil || string(got) != "question" {
			t.Errorf("%s: the host got %q, %v", network, got, err)
		}
		_, _ = host.Write([]byte("answer"))
		_ = host.CloseWrite()
		if got, err := io.ReadAll(guest); err != nil || string(got) != "answer" {
			t.Errorf("%s: the guest got %q, %v", network, got, err)
		}
	}
}

func TestSocketOfItsOwnGoesWithItsListener(t *testing.T) {
	a := serveAgent(t)
	l := a.listen(t, "unix", "")
	if info, err := os.Stat(l.Address); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%s: %v, %v", l.Address, info, err)
	}
	waiting, err := net.Dial("unix", l.Address) // that nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if n, err := waiting.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("a connection nobody took lives on: %v", err)
	}
	for _, err := os.Stat(filepath.Dir(l.Address)); !errors.Is(err, os.ErrNotExist); _, err = os.Stat(filepath.Dir(l.Address)) {
		time.Sleep(time.Millisecond)
	}
	if _, err := l.Accept(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accepting after the end: %v", err)
	}
}

// TestListenerThatNobodyAnswersIsNotFlooded: what is too much waits in the kernel.
func TestListenerThatNobodyAnswersIsNotFlooded(t *testing.T) {
	a := serveAgent(t)
	l := a.listen(t, "unix", filepath.Join(a.dir, "socket"))
	const many = 4 * mostIncoming
	for range many {
		go func() {
			if c, err := net.Dial("unix", l.Address); err == nil {
				defer c.Close()
				_, _ = c.Write([]byte("x"))
				_, _ = io.ReadAll(c)
			}
		}()
	}
	for range many {
		p, err := l.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(p, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		_ = p.Close()
	}
}

func TestListeningThatCannotBeSaysWhy(t *testing.T) {
	a := serveAgent(t)
	taken := listenOn(t, "tcp", "127.0.0.1:0").Addr().String()
	for _, c := range []struct {
		network, address string
		code             banger.Code
	}{
		{"tcp", taken, banger.Unavailable},
		{"unix", filepath.Join(a.dir, "no", "socket"), banger.Unavailable},
		{"udp", "127.0.0.1:0", banger.BadRequest},
	} {
		_, err := guestlink.Over(a.Conn).Listen(t.Context(), guestwire.Listen{Network: c.network, Address: c.address})
		if banger.CodeOf(err) != c.code {
			t.Errorf("%s %s: got %v", c.network, c.address, err)
		}
	}
	if _, err := a.Call(t.Context(), guestwire.KindAccept, guestwire.AppendNumber(nil, 7)); err == nil {
		t.Error("a connection that nobody made was accepted")
	}
}

// TestConnectionWhoseHostHasGoneIsClosed: the host asked for it and left before it
// was told.
func TestConnectionWhoseHostHasGoneIsClosed(t *testing.T) {
	l := listenOn(t, "unix", filepath.Join(t.TempDir(), "socket"))
	far, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	near := accepted(t, l)
	host, agentEnd := net.Pipe()
	a := &agent{}
	go func() {
		_ = guestwire.Serve(agentEnd, false, func(s *guestwire.Stream) {
			<-s.Done()
			a.accept(s)
		})
	}()
	c, err := guestwire.Dial(host, guestwire.NewToken(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	n := a.incoming.add(arrival{near, nil, func() {}})
	s, err := c.Open(guestwire.KindAccept, guestwire.AppendNumber(nil, n))
	if err != nil {
		t.Fatal(err)
	}
	s.Reset()
	_ = far.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("it lives on: %v", err)
	}
}
