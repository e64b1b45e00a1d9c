package cli

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"banger"
)

// voice is how banger speaks. Data goes to Out and nothing else does; every
// message goes to stderr and begins with "banger:".
type voice struct {
	Out io.Writer // data; flushed at exit, so that a full disk is noticed

	err   io.Writer
	out   *bufio.Writer
	plain bool // no colour, no live progress, no questions
	dumb  bool // the terminal can neither colour nor take back what it shows
	tty   tty
	cols  func() int // of the terminal that stderr is, 0 where nobody knows
	vm    string     // the one that failures are of, "" where that is none, or not known yet

	mu   sync.Mutex // guards err, and what is live on it
	live string     // the progress line on the terminal's last line, or ""
}

// tty says which of the standard streams are terminals.
type tty struct{ in, out, err bool }

// newVoice looks at the standard streams once.
func newVoice() *voice {
	out := bufio.NewWriter(os.Stdout)
	t := tty{isTerminal(os.Stdin), isTerminal(os.Stdout), isTerminal(os.Stderr)}
	kind := os.Getenv("TERM")
	return &voice{
		Out: out, out: out, err: os.Stderr, tty: t,
		plain: os.Getenv("NO_COLOR") != "" || isClosed(os.Stdin),
		dumb:  kind == "" || kind == "dumb",
		cols:  columnsOf(os.Stderr),
	}
}

// columnsOf asks anew each time: a window changes its size.
func columnsOf(f *os.File) func() int {
	return func() int {
		cols, _, err := term.GetSize(int(f.Fd()))
		if err != nil {
			return 0
		}
		return cols
	}
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// isClosed says whether nothing can come from f. A standard stream that was
// closed is /dev/null by the time main runs: the Go runtime opens it.
func isClosed(f *os.File) bool {
	var got, null unix.Stat_t
	if unix.Fstat(int(f.Fd()), &got) != nil {
		return true
	}
	return unix.Stat(os.DevNull, &null) == nil && got.Rdev == null.Rdev && got.Mode&unix.S_IFMT == unix.S_IFCHR
}

// lively says whether progress may be redrawn in place.
func (v *voice) lively() bool { return v.tty.err && !v.plain && !v.dumb }

// asks says whether a question would reach a person.
func (v *voice) asks() bool { return v.tty.in && v.tty.err && !v.plain }

// say writes one message for the person.
func (v *voice) say(format string, args ...any) { v.line("banger: " + text(format, args)) }

// warn writes a message that something is not as asked for.
func (v *voice) warn(format string, args ...any) {
	v.line("banger: " + v.paint(yellow, "warning: ") + text(format, args))
}

// hint writes a remedy.
func (v *voice) hint(format string, args ...any) {
	v.line(v.paint(dim, "hint: ") + text(format, args))
}

// fail reports an error: what could not be done, where to find it in the
// log, and what to do.
func (v *voice) fail(err error) {
	sentence := printable(err.Error())
	if id := operationOf(err); id != "" {
		sentence += fmt.Sprintf(" (operation %s)", banger.ShortID(id))
	}
	v.line("banger: " + v.paint(red, sentence))
	for _, h := range banger.HintsOf(err) {
		v.hint("%s", banger.NameVM(h, v.vm))
	}
}

// line writes one line to stderr around whatever is live there. Stderr may be
// gone; there is nobody left to tell then.
func (v *voice) line(text string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	live := v.live
	v.clear()
	_, _ = fmt.Fprintln(v.err, text)
	v.draw(live)
}

// draw puts text on the terminal's last line, in place of what was there. The
// lock is held.
func (v *voice) draw(text string) {
	if text == v.live {
		return
	}
	v.clear()
	_, _ = io.WriteString(v.err, text)
	v.live = text
}

func (v *voice) clear() {
	if v.live != "" {
		_, _ = io.WriteString(v.err, "\r\x1b[K")
		v.live = ""
	}
}

// flush writes out what is left of the data.
func (v *voice) flush() error {
	if err := v.out.Flush(); err != nil {
		return fmt.Errorf("cannot write the output: %w", err)
	}
	return nil
}

// colour is an ANSI attribute.
type colour string

const (
	red    colour = "31"
	yellow colour = "33"
	green  colour = "32"
	dim    colour = "2"
)

func (v *voice) paint(c colour, s string) string {
	if !v.lively() {
		return s
	}
	return "\x1b[" + string(c) + "m" + s + "\x1b[0m"
}

// paintOut is paint for what goes to stdout.
func (v *voice) paintOut(c colour, s string) string {
	if !v.tty.out || v.plain || v.dumb {
		return s
	}
	return "\x1b[" + string(c) + "m" + s + "\x1b[0m"
}

func text(format string, args []any) string { return printable(fmt.Sprintf(format, args...)) }

// printable makes text that may quote a guest harmless to a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (r < ' ' || r >= 0x7f && r < 0xa0) {
			return '\uFFFD'
		}
		return r
	}, s)
}
