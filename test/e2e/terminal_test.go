package e2e

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is what a person sits at: banger has the inside, the test types and
// reads at the outside.
type terminal struct {
	outside, inside *os.File
	seen            string // what was shown so far
}

func openTerminal(t *testing.T, rows, cols uint16) *terminal {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	inside, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		t.Fatal(errno)
	}
	tt := &terminal{outside: os.NewFile(uintptr(fd), "outside"), inside: os.NewFile(inside, "inside")}
	t.Cleanup(func() { tt.outside.Close(); tt.inside.Close() })
	tt.resize(t, rows, cols)
	return tt
}

// resize tells whoever has the terminal in the foreground, as a terminal does.
func (tt *terminal) resize(t *testing.T, rows, cols uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(tt.inside.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		t.Error(err)
	}
}

// start gives a command the terminal, which becomes its controlling one.
func (tt *terminal) start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tt.inside, tt.inside, tt.inside
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
}

func (tt *terminal) typed(t *testing.T, keys string) {
	t.Helper()
	if _, err := tt.outside.WriteString(keys); err != nil {
		t.Error(err)
	}
}

// await reads until what was not awaited yet contains text.
func (tt *terminal) await(t *testing.T, text string) {
	t.Helper()
	_ = tt.outside.SetReadDeadline(time.Now().Add(time.Minute))
	for buf := make([]byte, 4096); !strings.Contains(tt.seen, text); {
		n, err := tt.outside.Read(buf)
		tt.seen += string(buf[:n])
		if err != nil {
			t.Fatalf("waiting for %q: %v; the terminal shows %q", text, err, tt.seen)
		}
	}
	_, tt.seen, _ = strings.Cut(tt.seen, text)
}

// modes is how the terminal treats what is typed.
func (tt *terminal) modes(t *testing.T) unix.Termios {
	t.Helper()
	m, err := unix.IoctlGetTermios(int(tt.inside.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *m
}

func TestTerminalIsRawWhileACommandHasItAndGivenBackHoweverThatEnds(t *testing.T) {
	shared.start(t, "terminal")
	for _, c := range []struct {
		name    string
		command string
		end     func(t *testing.T, tt *terminal)
		status  int
	}{
		{"exit", "stty -echo; echo up; read line; echo got $line; exit 3",
			func(t *testing.T, tt *terminal) { tt.typed(t, "a line\r"); tt.await(t, "got a line\r\n") }, 3},
		{"Ctrl-C", "echo up; exec sleep 600",
			func(t *testing.T, tt *terminal) { tt.typed(t, "\x03") }, 128 + int(unix.SIGINT)},
		{"Ctrl-D", "echo up; cat; exit 4",
			func(t *testing.T, tt *terminal) { tt.typed(t, "\x04") }, 4},
		{"the VM's end", "echo up; exec sleep 600",
			func(t *testing.T, tt *terminal) { kill(t, shared.show(t, "terminal").VMMPID) }, 125},
	} {
		t.Run(c.name, func(t *testing.T) {
			tt := openTerminal(t, 24, 80)
			before := tt.modes(t)
			cmd := shared.Command("exec", "terminal", "--", "sh", "-c", c.command)
			tt.start(t, cmd)
			tt.await(t, "up\r\n")
			if during := tt.modes(t); during.Lflag&(unix.ECHO|unix.ICANON|unix.ISIG) != 0 {
				t.Errorf("the terminal is not raw: %+v", during)
			}
			c.end(t, tt)
			_ = cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != c.status {
				t.Errorf("status %d, want %d; the terminal shows %q", got, c.status, tt.seen)
			}
			if after := tt.modes(t); after != before {
				t.Errorf("the terminal is left as %+v, was %+v", after, before)
			}
		})
	}
}
