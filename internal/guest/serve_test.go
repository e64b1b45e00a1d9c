package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"banger/internal/guestwire"
)

// TestMain is the agent itself where a test starts this binary as one: it
// must be a process of its own, since it waits for all its children.
func TestMain(m *testing.M) {
	if os.Getenv("BANGER_GUEST_SERVE") != "" {
		os.Exit(Main([]string{"banger-guest", "serve"}, "test"))
	}
	if len(os.Args) == 2 && os.Args[1] == "sftp" { // a command of that agent
		os.Exit(Main(os.Args, "test"))
	}
	os.Exit(m.Run())
}

// served is an agent that runs as a process of this host.
type served struct {
	*guestwire.Conn
	cmd   *exec.Cmd
	dir   string // its HOME
	link  *os.File
	token [guestwire.TokenLen]byte
}

func serveAgent(t *testing.T) *served {
	t.Helper()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.SetNonblock(pair[0], true); err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "host"), os.NewFile(uintptr(pair[1]), "guest")
	defer theirs.Close()
	a := &served{cmd: exec.Command("/proc/self/exe"), dir: t.TempDir(), link: ours, token: guestwire.NewToken()}
	a.cmd.Env = append(os.Environ(), "BANGER_GUEST_SERVE=1", "HOME="+a.dir)
	a.cmd.ExtraFiles = []*os.File{theirs}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if a.Conn, err = guestwire.Dial(keptOpen{ours}, a.token, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = a.Close()
		_ = a.cmd.Wait()
	})
	return a
}

// Close ends the link.
func (a *served) Close() error { return errors.Join(a.link.Close(), a.Conn.Close()) }

// keptOpen is a link that a connection which ends leaves for the next.
type keptOpen struct{ *os.File }

func (keptOpen) Close() error { return nil }

// restore makes the agent one that was restored: its host is another one, and
// nothing tells it so.
func (a *served) restore(t *testing.T) {
	t.Helper()
	if err := a.link.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	<-a.Done()
	if err := a.link.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	old := a.token
	a.token = guestwire.NewToken()
	var err error
	if a.Conn, err = guestwire.Redial(keptOpen{a.link}, old, a.token, nil); err != nil {
		t.Fatal(err)
	}
}

// running is a command that the agent runs.
type running struct {
	*guestwire.Stream
	t   *testing.T
	in  io.WriteCloser
	out io.Reader
	err io.Reader
}

func (a *served) open(t *testing.T, e guestwire.Exec) *running {
	t.Helper()
	s, err := a.Open(guestwire.KindExec, e.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	return &running{s, t, s.Writer(guestwire.Stdin), s.Reader(guestwire.Stdout), s.Reader(guestwire.Stderr)}
}

func (a *served) sh(t *testing.T, script string) *running {
	t.Helper()
	return a.open(t, guestwire.Exec{Argv: []string{"sh", "-c", script}, Stdin: true})
}

// exit waits for the command's end.
func (r *running) exit() guestwire.Exit {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	body, err := r.Wait(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	exit, err := guestwire.ParseExit(body)
	if err != nil {
		r.t.Fatal(err)
	}
	return exit
}

// line reads a line of the command's output.
func (r *running) line() string {
	r.t.Helper()
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := r.out.Read(b); err != nil {
			r.t.Fatalf("%v after %q", err, line)
		}
		if b[0] == '\n' {
			return string(bytes.TrimSuffix(line, []byte("\r")))
		}
		line = append(line, b[0])
	}
}

// output is all the command writes to stdout.
func (r *running) output() string {
	r.t.Helper()
	out, err := io.ReadAll(r.out)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(out)
}

func (a *served) call(t *testing.T, method string, params, result any) error {
	t.Helper()
	p, err := json.Marshal(params)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(guestwire.Call{Method: method, Params: p})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := a.Call(context.Background(), guestwire.KindCall, body)
	if err == nil && result != nil {
		err = json.Unmarshal(answer, result)
	}
	return err
}

// gone waits until no process of a process group is left.
func gone(t *testing.T, group int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); syscall.Kill(-group, 0) != syscall.ESRCH; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process group %d is still there", group)
		}
	}
}
