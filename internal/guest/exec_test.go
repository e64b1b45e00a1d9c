package guest

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"banger/internal/guestwire"
)

func TestStatusIsPassedOnAsAShellGivesIt(t *testing.T) {
	a := serveAgent(t)
	plain := filepath.Join(a.dir, "plain")
	noFormat := filepath.Join(a.dir, "noformat")
	noInterpreter := filepath.Join(a.dir, "nointerpreter")
	for file, content := range map[string]string{plain: "", noFormat: "\x01\x02", noInterpreter: "#!/no/such/thing\n"} {
		mode := os.FileMode(0o755)
		if file == plain {
			mode = 0o644
		}
		if err := os.WriteFile(file, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		argv   []string
		status uint8
	}{
		{"success", []string{"true"}, 0},
		{"status", []string{"sh", "-c", "exit 42"}, 42},
		{"TERM", []string{"sh", "-c", "kill -TERM $$"}, 128 + 15},
		{"KILL", []string{"sh", "-c", "kill -KILL $$"}, 128 + 9},
		{"not in PATH", []string{"no-such-command"}, 127},
		{"no such file", []string{"/no/such/command"}, 127},
		{"relative", []string{"./plain"}, 126},
		{"not executable", []string{plain}, 126},
		{"directory", []string{"/etc"}, 126},
		{"not a program", []string{noFormat}, 126},
		{"no interpreter", []string{noInterpreter}, 127},
		{"below a file", []string{plain + "/x"}, 127},
	} {
		t.Run(c.name, func(t *testing.T) {
			exit := a.open(t, guestwire.Exec{Argv: c.argv}).exit()
			if exit.Status != c.status {
				t.Fatalf("status %d (%s), want %d", exit.Status, exit.Message, c.status)
			}
			if ran := c.status != 126 && c.status != 127; ran != (exit.Message == "") {
				t.Fatalf("message %q for status %d", exit.Message, exit.Status)
			}
		})
	}
}

func TestMissingDirectoryIsNamed(t *testing.T) {
	exit := serveAgent(t).open(t, guestwire.Exec{Argv: []string{"true"}, Dir: "/no/such/place"}).exit()
	if exit.Status != 126 || !strings.Contains(exit.Message, "/no/such/place") {
		t.Fatalf("got %d, %q", exit.Status, exit.Message)
	}
}

func TestOutputsStaySeparate(t *testing.T) {
	r := serveAgent(t).sh(t, "echo out; echo err >&2")
	out, _ := io.ReadAll(r.out)
	err, _ := io.ReadAll(r.err)
	if string(out) != "out\n" || string(err) != "err\n" {
		t.Fatalf("got %q and %q", out, err)
	}
}

func TestEndOfInputIsHalfClose(t *testing.T) {
	r := serveAgent(t).sh(t, "cat; echo after")
	_, _ = io.WriteString(r.in, "before\n")
	_ = r.in.Close()
	if got := r.output(); got != "before\nafter\n" {
		t.Fatalf("got %q", got)
	}
}

func TestWithoutInputStdinIsEmpty(t *testing.T) {
	r := serveAgent(t).open(t, guestwire.Exec{Argv: []string{"cat"}})
	if got, exit := r.output(), r.exit(); got != "" || exit.Status != 0 {
		t.Fatalf("got %q, %d", got, exit.Status)
	}
}

func TestEarlyEndOfAnOutputIsPassedOn(t *testing.T) {
	r := serveAgent(t).sh(t, "echo x; exec >&-; read line; exit 3")
	if got := r.output(); got != "x\n" { // while the command still runs
		t.Fatalf("got %q", got)
	}
	_ = r.in.Close()
	if exit := r.exit(); exit.Status != 3 {
		t.Fatalf("status %d", exit.Status)
	}
}

func TestClosedOutputIsSIGPIPE(t *testing.T) {
	r := serveAgent(t).sh(t, "exec cat /dev/zero")
	if _, err := io.ReadFull(r.out, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if err := r.Control(guestwire.CloseOutputControl(guestwire.Stdout)); err != nil {
		t.Fatal(err)
	}
	if exit := r.exit(); exit.Status != 128+13 {
		t.Fatalf("status %d", exit.Status)
	}
}

func TestResetEndsTheProcessGroup(t *testing.T) {
	r := serveAgent(t).sh(t, "sleep 1000 & echo $$; wait")
	group, err := strconv.Atoi(r.line())
	if err != nil {
		t.Fatal(err)
	}
	r.Reset()
	gone(t, group)
}

func TestLostLinkEndsCommandsAndAgent(t *testing.T) {
	a := serveAgent(t)
	r := a.sh(t, "trap '' HUP TERM; sleep 1000 & echo $$; wait")
	group, err := strconv.Atoi(r.line())
	if err != nil {
		t.Fatal(err)
	}
	_ = a.Close()
	if err := a.cmd.Wait(); err == nil {
		t.Fatal("the agent ended as if asked to")
	}
	gone(t, group)
}

func TestSignalsReachTheProcessGroup(t *testing.T) {
	r := serveAgent(t).sh(t, "sleep 1000 & trap 'wait; echo both; exit 5' USR1; echo ready; wait")
	r.line()
	if err := r.Control(guestwire.SignalControl(uint8(syscall.SIGUSR1))); err != nil {
		t.Fatal(err)
	}
	if line, exit := r.line(), r.exit(); line != "both" || exit.Status != 5 {
		t.Fatalf("got %q, %d", line, exit.Status)
	}
}

func TestBackgroundProcessDoesNotHoldTheCommand(t *testing.T) {
	r := serveAgent(t).sh(t, "sleep 1000 & echo $!; exit 4")
	pid := r.line()
	if exit := r.exit(); exit.Status != 4 {
		t.Fatalf("status %d", exit.Status)
	}
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil { // it lives on
		t.Fatal(err)
	}
}

func TestAllThatWasWrittenArrives(t *testing.T) {
	a := serveAgent(t)
	file := filepath.Join(a.dir, "file")
	content := make([]byte, 3<<20)
	_, _ = rand.Read(content)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	// The process in the background keeps the pipe open after the end.
	r := a.sh(t, "sleep 1000 & cat file; kill -STOP $!")
	got, err := io.ReadAll(r.out)
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("%d bytes of %d arrived: %v", len(got), len(content), err)
	}
}

func TestTerminalIsResized(t *testing.T) {
	// A shell that waits for a line misses a signal that comes just before it waits.
	r := serveAgent(t).open(t, guestwire.Exec{
		Argv: []string{"sh", "-c", "stty -echo; stty size; trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done"},
		TTY:  true, Rows: 31, Cols: 101, Stdin: true,
	})
	if line := r.line(); line != "31 101" {
		t.Fatalf("began with %q", line)
	}
	r.line()
	if err := r.Control(guestwire.ResizeControl(40, 120)); err != nil {
		t.Fatal(err)
	}
	if line := r.line(); line != "40 120" {
		t.Fatalf("after the change %q", line)
	}
}

func TestEndOfInputOnATerminal(t *testing.T) {
	r := serveAgent(t).open(t, guestwire.Exec{Argv: []string{"sh", "-c", "stty -echo; echo; cat; tty >/dev/null; echo $?"}, TTY: true, Stdin: true})
	r.line()
	_, _ = io.WriteString(r.in, "text\n")
	_ = r.in.Close()
	if got := r.output(); got != "text\r\n0\r\n" {
		t.Fatalf("got %q", got)
	}
}

func TestTerminalIsTheControllingOne(t *testing.T) {
	r := serveAgent(t).open(t, guestwire.Exec{Argv: []string{"sh", "-c", "echo ready >/dev/tty; exec sleep 1000"}, TTY: true, Stdin: true})
	r.line()
	_, _ = r.in.Write([]byte{3}) // Ctrl-C
	if exit := r.exit(); exit.Status != 128+2 {
		t.Fatalf("status %d", exit.Status)
	}
}

func TestManyCommandsAtOnce(t *testing.T) {
	a := serveAgent(t)
	stuck := a.sh(t, "exec cat /dev/zero") // nobody reads it
	errs := make(chan error)
	const n = 16
	for i := range n {
		go func() {
			r := a.sh(t, fmt.Sprintf("cat; exit %d", i))
			content := make([]byte, 2<<20)
			_, _ = rand.Read(content)
			go func() {
				_, _ = r.in.Write(content)
				_ = r.in.Close()
			}()
			got, err := io.ReadAll(r.out)
			if err == nil && sha256.Sum256(got) != sha256.Sum256(content) {
				err = fmt.Errorf("command %d gave %d bytes of %d", i, len(got), len(content))
			}
			if exit := r.exit(); err == nil && int(exit.Status) != i {
				err = fmt.Errorf("command %d ended with %d", i, exit.Status)
			}
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	stuck.Reset()
}

func TestEnvironmentOfACommand(t *testing.T) {
	a := serveAgent(t)
	if err := a.call(t, guestwire.MethodSetup, guestwire.Setup{Env: []string{"FROM=image", "KEPT=image", "LANG=de_DE.UTF-8"}}, nil); err != nil {
		t.Fatal(err)
	}
	r := a.open(t, guestwire.Exec{
		Argv: []string{"sh", "-c", `echo "$FROM $KEPT $LANG $IS_SANDBOX $HOME"; pwd`},
		Env:  []string{"FROM=request"},
	})
	want := fmt.Sprintf("request image de_DE.UTF-8 1 %s\n%s\n", a.dir, a.dir)
	if got := r.output(); got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}
