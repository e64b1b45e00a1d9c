package sshd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"banger"
)

func TestOnlyTheUsersKeyIsLetIn(t *testing.T) {
	r := newRig(t)
	_, other := newKey(t)
	if _, err := r.tries(other); err == nil {
		t.Fatal("another key was let in")
	}
	if err := <-r.served; banger.CodeOf(err) != banger.Unauthorized {
		t.Errorf("Serve: %v", err)
	}
	_ = r.connect().Close()
	if err := <-r.served; err != nil {
		t.Errorf("Serve, after the client left: %v", err)
	}
}

func TestCommandEndsAsInTheGuest(t *testing.T) {
	r := newRig(t)
	c := r.connect()
	for _, k := range []struct {
		command string
		status  int
		signal  string
	}{
		{"exit 0", 0, ""}, {"exit 42", 42, ""}, {"kill -KILL $$", 137, "KILL"}, {"exit 137", 137, ""}, {"no-such-command", 127, ""},
	} {
		err := r.session(c).Run(k.command)
		var exit *ssh.ExitError
		switch {
		case err == nil && k.status == 0:
		case !errors.As(err, &exit) || exit.Signal() != k.signal || exit.ExitStatus() != k.status:
			t.Errorf("%q: got %v, want %d %s", k.command, err, k.status, k.signal)
		}
	}
}

func TestStreamsAreKeptApartAndInputEnds(t *testing.T) {
	r := newRig(t)
	s := r.session(r.connect())
	var out, errs bytes.Buffer
	input := strings.Repeat("0123456789abcdef", 100_000)
	s.Stdin, s.Stdout, s.Stderr = strings.NewReader(input), &out, &errs
	if err := s.Run("pwd >&2; cat"); err != nil {
		t.Fatal(err)
	}
	if out.String() != input || errs.String() != r.home+"\n" {
		t.Errorf("%d bytes came back, stderr is %q", out.Len(), errs.String())
	}
}

func TestEnvironmentComesButForTheLanguage(t *testing.T) {
	r := newRig(t)
	r.server.Env = []string{"FOO=ours", "BAR=ours"}
	s := r.session(r.connect())
	if err := s.Setenv("FOO", "a b"); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"LANG", "LC_ALL", "A=B"} {
		if s.Setenv(name, "xx") == nil {
			t.Errorf("%s was taken", name)
		}
	}
	out, err := s.Output(`echo "$FOO" $BAR $LANG ${SSH_CONNECTION:+ssh}`)
	if err != nil || string(out) != "a b ours C.UTF-8 ssh\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestTerminalHasItsSizeAndIsResized(t *testing.T) {
	r := newRig(t)
	s := r.session(r.connect())
	if err := s.RequestPty("xterm", 11, 22, nil); err != nil {
		t.Fatal(err)
	}
	out, _ := s.StdoutPipe()
	if err := s.Start(`stty size; echo $TERM; until [ "$(stty size)" = "33 44" ]; do sleep 0.01; done; echo resized`); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for _, want := range []string{"11 22", "xterm"} {
		if lines.Scan(); strings.TrimSpace(lines.Text()) != want {
			t.Fatalf("got %q, want %q", lines.Text(), want)
		}
	}
	if err := s.WindowChange(33, 44); err != nil {
		t.Fatal(err)
	}
	if lines.Scan(); strings.TrimSpace(lines.Text()) != "resized" {
		t.Errorf("after the resize: %q", lines.Text())
	}
}

// Somebody at a terminal is told what a shell opens with; a command is not.
func TestShellOnATerminalOpensWithTheNotice(t *testing.T) {
	r := newRig(t)
	r.server.Notice = "network: none"
	for _, c := range []struct {
		pty, shell bool
		want       string
	}{{true, true, "banger: network: none\r\n"}, {false, true, ""}, {true, false, ""}} {
		s := r.session(r.connect())
		var said strings.Builder
		s.Stderr = &said
		if c.shell {
			s.Stdin = strings.NewReader("exit\n")
		}
		if c.pty {
			if err := s.RequestPty("xterm", 11, 22, nil); err != nil {
				t.Fatal(err)
			}
		}
		begin := func() error { return s.Start("true") }
		if c.shell {
			begin = s.Shell
		}
		err := begin()
		if err == nil {
			err = s.Wait()
		}
		if err != nil || said.String() != c.want {
			t.Errorf("%+v: stderr has %q, %v", c, said.String(), err)
		}
	}
}

func TestSignalReachesTheCommand(t *testing.T) {
	r := newRig(t)
	s := r.session(r.connect())
	out, _ := s.StdoutPipe()
	if err := s.Start("trap 'echo got; exit 5' USR1; echo up; while :; do sleep 0.01; done"); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Scan()
	if err := s.Signal(ssh.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if lines.Scan(); lines.Text() != "got" {
		t.Errorf("got %q", lines.Text())
	}
}

func TestClientThatLeavesEndsItsCommand(t *testing.T) {
	r := newRig(t)
	c := r.connect()
	s := r.session(c)
	out, _ := s.StdoutPipe()
	if err := s.Start("exec 2>/dev/null; trap 'echo HUP > ended; exit' HUP; echo up; while :; do sleep 0.01; done"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "up\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	_ = c.Close()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if got, err := os.ReadFile(filepath.Join(r.home, "ended")); err == nil && string(got) == "HUP\n" {
			return
		} else if time.Now().After(deadline) {
			t.Fatalf("it was not hung up: %q, %v", got, err)
		}
	}
}

func TestFilesAreServed(t *testing.T) {
	r := newRig(t)
	c, err := sftp.NewClient(r.connect())
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.OpenFile("file", os.O_WRONLY|os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.Write([]byte("content"))
	_ = f.Close()
	if got, err := os.ReadFile(filepath.Join(r.home, "file")); err != nil || string(got) != "content" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := r.session(r.connect()).RequestSubsystem("netconf"); err == nil {
		t.Error("another subsystem was started")
	}
}

// echoes answers one connection with what it says.
func echoes(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn); _ = conn.Close() }()
		}
	}()
	return l
}

func says(t *testing.T, conn net.Conn, what string) {
	t.Helper()
	if _, err := io.WriteString(conn, what); err != nil {
		t.Error(err)
	}
	_ = conn.(interface{ CloseWrite() error }).CloseWrite()
	if got, err := io.ReadAll(conn); err != nil || string(got) != what {
		t.Errorf("%q came back as %d bytes, %v", what[:5], len(got), err)
	}
	_ = conn.Close()
}

func TestConnectionsAreMadeInTheGuest(t *testing.T) {
	r := newRig(t)
	c := r.connect()
	var all sync.WaitGroup
	for _, l := range []net.Listener{echoes(t, "tcp", "127.0.0.1:0"), echoes(t, "unix", filepath.Join(r.home, "socket"))} {
		for i := range 20 { // all at once
			all.Go(func() {
				conn, err := c.Dial(l.Addr().Network(), l.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				says(t, conn, fmt.Sprintf("hello %d %s", i, strings.Repeat("x", 100_000)))
			})
		}
	}
	all.Wait()
	if _, err := c.Dial("unix", filepath.Join(r.home, "none")); err == nil || !strings.Contains(err.Error(), "no such socket") {
		t.Errorf("where nobody listens: %v", err)
	}
}

func TestConnectionsInTheGuestComeOut(t *testing.T) {
	r := newRig(t)
	c := r.connect()
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(r.home, "back")} {
		l, err := c.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			conn, err := l.Accept()
			if err == nil {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			}
		}()
		conn, err := net.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		says(t, conn, "hello from inside")
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if conn, err := net.Dial(network, l.Addr().String()); err == nil {
			if _, err := conn.Read(make([]byte, 1)); err == nil {
				t.Errorf("%s: answered after the end", network)
			}
		}
	}
}

// TestGuestOpensOnlySoManyConnectionsAtOnce: the client takes its time, and what is
// too much waits in the guest.
func TestGuestOpensOnlySoManyConnectionsAtOnce(t *testing.T) {
	r := newRig(t)
	c := r.connect()
	coming := c.HandleChannelOpen("forwarded-streamlocal@openssh.com")
	at := filepath.Join(r.home, "back")
	if ok, _, err := c.SendRequest("streamlocal-forward@openssh.com", true, ssh.Marshal(struct{ Path string }{at})); !ok || err != nil {
		t.Fatalf("%v, %v", ok, err)
	}
	for range mostJoined + 1 {
		conn, err := net.Dial("unix", at)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	var first ssh.NewChannel
	for range mostJoined {
		first = <-coming
	}
	if err := r.session(c).Run("true"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-coming:
		t.Error("there is one too many")
	default:
	}
	if err := first.Reject(ssh.Prohibited, "enough"); err != nil {
		t.Fatal(err)
	}
	<-coming
}

func TestKeyAgentIsForwardedOnlyWhereAllowed(t *testing.T) {
	r := newRig(t)
	ask := func() (out []byte, offered error) {
		c := r.connect()
		if err := agent.ForwardToAgent(c, agent.NewKeyring()); err != nil {
			t.Fatal(err)
		}
		s := r.session(c)
		offered = agent.RequestAgentForwarding(s)
		out, err := s.Output("echo $SSH_AUTH_SOCK")
		if err != nil {
			t.Fatal(err)
		}
		return out, offered
	}
	if out, err := ask(); err == nil || string(out) != "\n" {
		t.Errorf("without leave: %q, %v", out, err)
	}
	r.server.Agent = true
	out, err := ask()
	if err != nil || !strings.Contains(string(out), "/agent") {
		t.Errorf("with leave: %q, %v", out, err)
	}
}

func TestForwardedAgentAnswersInTheGuest(t *testing.T) {
	r := newRig(t)
	r.server.Agent = true
	c := r.connect()
	if err := agent.ForwardToAgent(c, agent.NewKeyring()); err != nil {
		t.Fatal(err)
	}
	s := r.session(c)
	if err := agent.RequestAgentForwarding(s); err != nil {
		t.Fatal(err)
	}
	in, _ := s.StdinPipe()
	out, _ := s.StdoutPipe()
	if err := s.Start("echo $SSH_AUTH_SOCK; cat"); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Scan()
	conn, err := net.Dial("unix", lines.Text()) // as a program in the guest
	if err != nil {
		t.Fatal(err)
	}
	if _, err := agent.NewClient(conn).List(); err != nil {
		t.Errorf("the agent does not answer: %v", err)
	}
	_ = in.Close()
	_ = s.Wait()
}

func TestWhatIsNotOfferedIsRefused(t *testing.T) {
	r := newRig(t)
	c := r.connect()
	if _, _, err := c.OpenChannel("tun@openssh.com", nil); err == nil {
		t.Error("a tunnel was opened")
	}
	if ok, _, err := c.SendRequest("keepalive@openssh.com", true, nil); ok || err != nil {
		t.Errorf("a keep-alive got %v, %v", ok, err)
	}
	if ok, err := r.session(c).SendRequest("x11-req", true, nil); ok || err != nil {
		t.Errorf("X11 got %v, %v", ok, err)
	}
}

func TestLossOfTheGuestIsSaid(t *testing.T) {
	r := newRig(t)
	s := r.session(r.connect())
	out, _ := s.StdoutPipe()
	errs, _ := s.StderrPipe()
	if err := s.Start("echo up; exec sleep 600"); err != nil {
		t.Fatal(err)
	}
	bufio.NewScanner(out).Scan()
	_ = r.agent.Process.Kill()
	said, _ := io.ReadAll(errs)
	if !strings.HasPrefix(string(said), "banger: ") || !strings.Contains(string(said), "ended") {
		t.Errorf("the session says %q", said)
	}
	if err := s.Wait(); !errors.As(err, new(*ssh.ExitMissingError)) {
		t.Errorf("the session ended with %v", err)
	}
	if err := <-r.served; banger.CodeOf(err) != banger.Unavailable {
		t.Errorf("Serve: %v", err)
	}
}
