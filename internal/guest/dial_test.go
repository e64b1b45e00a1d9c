package guest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/guestlink"
)

// accepted is the far end of one connection.
func accepted(t *testing.T, l net.Listener) halfCloser {
	t.Helper()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn.(halfCloser)
}

func listenOn(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func dialGuest(t *testing.T, a *served, network, address string) *guestlink.Pipe {
	t.Helper()
	p, err := guestlink.Over(a.Conn).Dial(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// dialled are the two ends of a connection through an agent.
func dialled(t *testing.T, a *served) (host *guestlink.Pipe, guest halfCloser) {
	t.Helper()
	l := listenOn(t, "tcp", "127.0.0.1:0")
	return dialGuest(t, a, "tcp", l.Addr().String()), accepted(t, l)
}

func TestDialReachesSocketsOfEveryKind(t *testing.T) {
	a := serveAgent(t)
	v4 := listenOn(t, "tcp", "127.0.0.1:0")
	_, port, _ := net.SplitHostPort(v4.Addr().String())
	for name, c := range map[string]struct {
		network, address string
		l                net.Listener
	}{
		"IPv4":        {"tcp", v4.Addr().String(), v4},
		"a name":      {"tcp", "localhost:" + port, v4},
		"IPv6":        {"tcp", "", listenOn(t, "tcp", "[::1]:0")},
		"unix socket": {"unix", "", listenOn(t, "unix", filepath.Join(a.dir, "socket"))},
	} {
		t.Run(name, func(t *testing.T) {
			if c.address == "" {
				c.address = c.l.Addr().String()
			}
			host := dialGuest(t, a, c.network, c.address)
			guest := accepted(t, c.l)
			if _, err := host.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 5)
			if _, err := io.ReadFull(guest, got); err != nil || string(got) != "hello" {
				t.Fatalf("the guest got %q, %v", got, err)
			}
		})
	}
}

func TestEachHalfOfADialledConnectionEndsByItself(t *testing.T) {
	a := serveAgent(t)
	t.Run("the host's first", func(t *testing.T) {
		host, guest := dialled(t, a)
		_, _ = host.Write([]byte("question"))
		if err := host.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(guest); err != nil || string(got) != "question" {
			t.Fatalf("the guest got %q, %v", got, err)
		}
		_, _ = guest.Write([]byte("answer"))
		_ = guest.Close()
		if got, err := io.ReadAll(host); err != nil || string(got) != "answer" {
			t.Fatalf("the host got %q, %v", got, err)
		}
	})
	t.Run("the guest's first", func(t *testing.T) {
		host, guest := dialled(t, a)
		_, _ = guest.Write([]byte("greeting"))
		_ = guest.CloseWrite()
		if got, err := io.ReadAll(host); err != nil || string(got) != "greeting" {
			t.Fatalf("the host got %q, %v", got, err)
		}
		// All of it arrives although the host is done with the connection.
		want := bytes.Repeat([]byte("x"), 200<<10)
		if _, err := host.Write(want); err != nil {
			t.Fatal(err)
		}
		_ = host.CloseWrite()
		_ = host.Close()
		a.sh(t, "true").exit() // the agent knows by now
		if got, err := io.ReadAll(guest); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("the guest got %d bytes, %v", len(got), err)
		}
	})
}

func TestDialledConnectionCarriesMuchBothWaysAtOnce(t *testing.T) {
	host, guest := dialled(t, serveAgent(t))
	want := bytes.Repeat([]byte("0123456789abcdef"), 500_000)
	send := func(to halfWriter) {
		_, _ = to.Write(want)
		_ = to.CloseWrite()
	}
	go send(host)
	go send(guest)
	there := make(chan []byte, 1)
	go func() { b, _ := io.ReadAll(guest); there <- b }()
	if here, err := io.ReadAll(host); err != nil || !bytes.Equal(here, want) {
		t.Errorf("the host got %d bytes, %v", len(here), err)
	}
	if !bytes.Equal(<-there, want) {
		t.Error("the guest did not get all")
	}
}

type halfWriter interface {
	io.Writer
	CloseWrite() error
}

func TestBrokenConnectionIsNoEnd(t *testing.T) {
	a := serveAgent(t)
	t.Run("by the guest", func(t *testing.T) {
		host, guest := dialled(t, a)
		_ = guest.(*net.TCPConn).SetLinger(0)
		_ = guest.Close()
		if got, err := io.ReadAll(host); banger.CodeOf(err) != banger.Unavailable || !strings.Contains(err.Error(), "reset") {
			t.Fatalf("got %q, %v", got, err)
		}
	})
	t.Run("by the host", func(t *testing.T) {
		host, guest := dialled(t, a)
		_ = host.Close()
		if got, err := io.ReadAll(guest); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("got %q, %v", got, err)
		}
	})
	t.Run("by the host after it ended its half", func(t *testing.T) {
		host, guest := dialled(t, a)
		_ = host.CloseWrite()
		_, _ = io.ReadAll(guest)
		_ = host.Close()
		for { // until what is written meets the closed socket
			if _, err := guest.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	})
	t.Run("by a restore", func(t *testing.T) {
		_, guest := dialled(t, a)
		a.restore(t)
		if got, err := io.ReadAll(guest); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("got %q, %v", got, err)
		}
	})
}

// A program that was stopped neither reads nor writes, and the agent's socket is full.
func TestConnectionBreaksWithTheHostAlsoWhereNobodyReads(t *testing.T) {
	a := serveAgent(t)
	host, _ := dialled(t, a)
	joined := a.descriptors(t)
	full := make(chan error, 1)
	go func() {
		for err := error(nil); err == nil; {
			_, err = host.Write(make([]byte, 64<<10))
		}
		full <- nil
	}()
	select {
	case <-full:
		t.Fatal("somebody reads")
	case <-time.After(200 * time.Millisecond):
	}
	_ = host.Close()
	<-full
	for a.descriptors(t) >= joined {
		time.Sleep(time.Millisecond)
	}
}

func TestWhatTheHostWroteBeforeItEndedItsHalfIsNotLostWithTheRest(t *testing.T) {
	a := serveAgent(t)
	for range 20 {
		host, guest := dialled(t, a)
		said := bytes.Repeat([]byte("x"), 100_000)
		if _, err := host.Write(said); err != nil {
			t.Fatal(err)
		}
		_ = host.CloseWrite()
		_ = host.Close()
		if got, err := io.ReadAll(guest); !bytes.Equal(got, said) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
}

func TestDialThatCannotBeSaysWhy(t *testing.T) {
	a := serveAgent(t)
	gone := listenOn(t, "tcp", "127.0.0.1:0")
	_ = gone.Close()
	stale := filepath.Join(a.dir, "stale")
	if err := os.WriteFile(stale, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		network, address string
		code             banger.Code
		says             string
	}{
		{"tcp", gone.Addr().String(), banger.Unavailable, "connection refused"},
		{"tcp", "no-such-host.invalid:80", banger.NotFound, "no such name"},
		{"tcp", "127.0.0.1", banger.BadRequest, "missing port"},
		{"unix", filepath.Join(a.dir, "none"), banger.NotFound, "no such socket"},
		{"unix", stale, banger.Unavailable, "connection refused"},
		{"udp", "127.0.0.1:53", banger.BadRequest, "neither tcp nor unix"},
	} {
		_, err := guestlink.Over(a.Conn).Dial(t.Context(), c.network, c.address)
		if banger.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), c.address) {
			t.Errorf("%s %s: got %s: %v", c.network, c.address, banger.CodeOf(err), err)
		}
	}
}

func TestDialThatIsCancelledIsAbandoned(t *testing.T) {
	a := serveAgent(t)
	address := unresponsive(t, a)
	before := a.descriptors(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	result := make(chan error, 1)
	go func() {
		_, err := guestlink.Over(a.Conn).Dial(ctx, "tcp", address)
		result <- err
	}()
	for a.descriptors(t) == before { // until the agent tries
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-result; banger.CodeOf(err) != banger.Cancelled {
		t.Fatalf("got %v", err)
	}
	for a.descriptors(t) != before {
		time.Sleep(time.Millisecond)
	}
}

// unresponsive listens where nobody gets an answer: one has connected, and the
// queue is full with that.
func unresponsive(t *testing.T, a *served) (address string) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address = net.JoinHostPort("127.0.0.1", strconv.Itoa(bound.(*syscall.SockaddrInet4).Port))
	dialGuest(t, a, "tcp", address)
	return address
}

// descriptors is how many the agent has open.
func (a *served) descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir("/proc/" + strconv.Itoa(a.cmd.Process.Pid) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}
