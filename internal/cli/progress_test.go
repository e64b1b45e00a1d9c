package cli

import (
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/api"
)

func TestALiveLineFitsItsTerminal(t *testing.T) {
	for _, c := range []struct {
		stage string
		cols  int
		want  string
	}{
		{"boot", 80, "banger: boot… 1.2s"},
		{"boot", 0, "banger: boot… 1.2s"},
		{"boot", 19, "banger: boot… 1.2s"},
		{"boot", 18, "banger: boo… 1.2s"},
		{"boot", 13, "banger: boo…"},
		{"boot", 3, "b…"},
		{"two\nlines\tof it", 80, "banger: two lines of it… 1.2s"},
		{"取得する", 21, "banger: 取得す… 1.2s"},
		{"取得する", 20, "banger: 取得… 1.2s"},
		{"e\u0301te\u0301", 18, "banger: e\u0301te\u0301… 1.2s"},
	} {
		got := liveLine(c.stage, "1.2s", c.cols)
		if got != c.want || c.cols > 0 && cells(got) >= c.cols {
			t.Errorf("%q in %d columns is %q of %d, want %q", c.stage, c.cols, got, cells(got), c.want)
		}
	}
}

// A dumb terminal takes nothing back, and NO_COLOR asks for nothing of the kind.
func TestProgressOnTerminals(t *testing.T) {
	long := "fetch layer 2 of 3, sha256:" + strings.Repeat("0123456789abcdef", 4)
	for _, c := range []struct {
		name, term, noColor string
		want                []string
	}{
		{"one that can", "xterm", "", []string{"banger: warning: careful"}},
		{"a dumb one", "dumb", "", []string{"banger: [0ms] begin", "banger: [0ms] " + long, "banger: warning: careful"}},
		{"one that is unknown", "", "", []string{"banger: [0ms] begin", "banger: [0ms] " + long, "banger: warning: careful"}},
		{"without colour", "xterm", "1", []string{"banger: [0ms] begin", "banger: [0ms] " + long, "banger: warning: careful"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("TERM", c.term)
			t.Setenv("NO_COLOR", c.noColor)
			var screen []string
			synctest.Test(t, func(t *testing.T) {
				screen = onTerminal(t, 40, func(v *voice) {
					p := v.progress()
					p.watch(api.Event{Stage: "begin"})
					p.watch(api.Event{Stage: long})
					for range 3 { // as time passes
						p.mu.Lock()
						if v.lively() {
							p.since = p.since.Add(-100 * time.Millisecond)
							p.show()
						}
						p.mu.Unlock()
					}
					p.watch(api.Event{Warning: "careful"})
					p.since = time.Now()
					p.end()
				})
			})
			if want := wrapped(c.want, 40); strings.Join(screen, "\n") != strings.Join(want, "\n") {
				t.Errorf("the screen shows\n%s\nwant\n%s", strings.Join(screen, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// onTerminal gives banger's voice a terminal and says what is on it at last.
func onTerminal(t *testing.T, cols uint16, speak func(*voice)) []string {
	t.Helper()
	outside, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	if err := unix.IoctlSetPointerInt(int(outside.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, outside.Fd(), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY)
	if errno != 0 {
		t.Fatal(errno)
	}
	inside := os.NewFile(fd, "inside")
	if err := unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: cols}); err != nil {
		t.Fatal(err)
	}
	shown := make(chan []string)
	go func() { shown <- screenOf(outside, int(cols)) }()
	in, out := os.Stdin, os.Stderr
	os.Stdin, os.Stderr = inside, inside
	v := newVoice()
	os.Stdin, os.Stderr = in, out
	speak(v)
	inside.Close()
	return <-shown
}

// screenOf reads what is written to a terminal until that is closed. It knows what
// banger uses: carriage return, newline, the end of a line erased, colours.
func screenOf(f *os.File, cols int) (lines []string) {
	var text strings.Builder
	for buf := make([]byte, 4096); ; {
		n, err := f.Read(buf)
		text.Write(buf[:n])
		if err != nil { // EIO: the other side is closed
			break
		}
	}
	row, col := 0, 0
	screen := [][]rune{nil}
	for rest := []rune(text.String()); len(rest) > 0; rest = rest[1:] {
		switch r := rest[0]; {
		case r == '\r':
			col = 0
		case r == '\n':
			if row++; row == len(screen) {
				screen = append(screen, nil)
			}
		case r == '\x1b':
			end := 2
			for rest[end] < '@' {
				end++
			}
			if rest[end] == 'K' {
				screen[row] = screen[row][:min(col, len(screen[row]))]
			}
			rest = rest[end:]
		default:
			if col == cols {
				row, col = row+1, 0
				screen = append(screen, nil)
			}
			screen[row] = append(screen[row][:col], r)
			col++
		}
	}
	for _, line := range screen {
		lines = append(lines, string(line))
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

// wrapped is lines as a terminal shows them.
func wrapped(lines []string, cols int) (out []string) {
	for _, line := range lines {
		for ; len(line) > cols; line = line[cols:] {
			out = append(out, line[:cols])
		}
		out = append(out, line)
	}
	return out
}
