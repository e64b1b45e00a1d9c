package firecracker

import (
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// TestAgentIsAskedForByTheFirstWrite plays Firecracker's end of its vsock socket.
func TestAgentIsAskedForByTheFirstWrite(t *testing.T) {
	for _, c := range []struct{ what, answer, fails string }{
		{"the guest accepts", "OK 1073741824\n", ""},
		{"nobody listens", "", "nobody listens at the agent's port: EOF"},
		{"it says something else", "NO\n", `cannot reach the agent: Firecracker says "NO"`},
		{"it says no end of it", "OK 0000000000000000000000000000000000\n", `cannot reach the agent: Firecracker says "OK 00000000000000000000000000000"`},
	} {
		t.Run(c.what, func(t *testing.T) {
			conn, firecracker := connect(t)
			asked := make(chan string)
			go func() {
				line := make([]byte, len("CONNECT 52\n"))
				io.ReadFull(firecracker, line)
				io.WriteString(firecracker, c.answer)
				if c.answer == "" {
					firecracker.Close()
				}
				asked <- string(line)
			}()
			_, err := conn.Write([]byte("greeting"))
			if line := <-asked; line != "CONNECT 52\n" {
				t.Errorf("Firecracker was asked %q", line)
			}
			if err != nil || c.fails != "" {
				if err == nil || err.Error() != c.fails {
					t.Errorf("%v, want %q", err, c.fails)
				}
				return
			}
			io.WriteString(conn, ", and more")
			conn.Close()
			if rest, _ := io.ReadAll(firecracker); string(rest) != "greeting, and more" {
				t.Errorf("the guest gets %q", rest)
			}
		})
	}
}

func connect(t *testing.T) (*agentConn, net.Conn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), vsockName)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	for _, end := range []net.Conn{near, far} {
		end.SetDeadline(time.Now().Add(time.Minute)) // of a test that hangs
	}
	return &agentConn{Conn: near}, far
}
