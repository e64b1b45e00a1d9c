package e2e

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// service is a TCP service of the host's 127.0.0.1 that sends a line, keeps the
// connection open, and tells when one came.
type service struct {
	port  int
	comes chan net.Conn
}

func serve(t *testing.T) *service {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &service{l.Addr().(*net.TCPAddr).Port, make(chan net.Conn, 16)}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, "hello")
			s.comes <- c
		}
	}()
	t.Cleanup(func() { l.Close() })
	return s
}

// rule is what lets a guest reach it.
func (s *service) rule() string { return fmt.Sprintf("host.vm:%d", s.port) }

// reader is a guest's program that only reads, and says how that ended.
const reader = `import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 30)
s.settimeout(None)
print(s.makefile().readline(), file=open("/root/first", "w"), flush=True)
try:
    end = repr(s.recv(1))
except OSError as e:
    end = e.__class__.__name__
print(end, file=open("/root/end", "w"), flush=True)
`

// reading begins a reader in a VM, which has read its line when this returns.
func (w home) reading(t *testing.T, vm string, s *service) {
	t.Helper()
	w.must(t, "exec", "-d", vm, "--", "python3", "-c", reader, "host.vm", fmt.Sprint(s.port))
	eventually(t, "the reader is connected", func() bool {
		return strings.Contains(w.Banger("exec", vm, "--", "cat", "/root/first").Stdout, "hello")
	})
}

// wantReset sees that the reader ended, and that a new connection works.
func (w home) wantReset(t *testing.T, vm string, s *service) {
	t.Helper()
	eventually(t, "the reader in "+vm+" has ended", func() bool {
		return w.Banger("exec", vm, "--", "test", "-s", "/root/end").Status == 0
	})
	if got := w.must(t, "exec", vm, "--", "cat", "/root/end"); got != "ConnectionAbortedError" && got != "ConnectionResetError" {
		t.Errorf("the reader in %s saw %s", vm, got)
	}
	line := w.must(t, "exec", vm, "--", "python3", "-c",
		`import socket, sys; print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 30).makefile().readline())`, "host.vm", fmt.Sprint(s.port))
	if line != "hello" {
		t.Errorf("a new connection of %s brought %q", vm, line)
	}
}

// addresses are those of a guest's card.
func (w home) addresses(t *testing.T, vm string) string {
	t.Helper()
	return w.must(t, "exec", vm, "--", "sh", "-c", "ip -4 -o addr show scope global | awk '{print $4}'")
}

func TestForksHaveAddressesOfTheirOwnAndNoOldConnections(t *testing.T) {
	w, s := shared, serve(t)
	w.start(t, "talk", "--allow", s.rule())
	w.reading(t, "talk", s)
	own := <-s.comes
	w.fork(t, "talk", "1")
	w.wantReset(t, "talk-1", s)
	for _, vm := range []string{"talk", "talk-1"} {
		if got, want := w.addresses(t, vm), w.show(t, vm).GuestIP+"/32"; got != want {
			t.Errorf("%s has the addresses %q, want %s", vm, got, want)
		}
	}
	// The parent's goes on.
	if r := w.Banger("exec", "talk", "--", "test", "-e", "/root/end"); r.Status == 0 {
		t.Error("the parent's reader has ended")
	}
	if _, err := fmt.Fprint(own, "x"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the parent's reader reads", func() bool {
		return strings.TrimSpace(w.Banger("exec", "talk", "--", "cat", "/root/end").Stdout) == "b'x'"
	})
}

func TestResumedVMHasNoOldConnections(t *testing.T) {
	w, s := shared, serve(t)
	w.start(t, "doze", "--allow", s.rule())
	w.reading(t, "doze", s)
	w.must(t, "vm", "suspend", "doze")
	w.must(t, "start", "doze")
	w.wantReset(t, "doze", s)
}

func TestConnectionsEndWhenTheNetworkIsTakenAway(t *testing.T) {
	w, s := shared, serve(t)
	w.start(t, "cut", "--allow", s.rule())
	w.reading(t, "cut", s)
	host := bufio.NewReader(<-s.comes)
	began := time.Now()
	w.must(t, "vm", "set", "cut", "--no-allow")
	_, err := host.ReadByte() // the host's side sees it too
	t.Logf("the connection ended %v after the command was begun: %v", time.Since(began), err)
	eventually(t, "the reader has ended", func() bool {
		return w.Banger("exec", "cut", "--", "test", "-s", "/root/end").Status == 0
	})
	r := w.Banger("exec", "cut", "--", "sh", "-c", fmt.Sprintf("curl -sS -m 10 http://host.vm:%d", s.port))
	if r.Status == 0 || !strings.Contains(r.Stderr, "banger: network: refused") || !strings.Contains(r.Stderr, "--allow "+s.rule()) && !strings.Contains(r.Stderr, "--allow host.vm") {
		t.Errorf("status %d, and it says\n%s", r.Status, r.Stderr)
	}
}
