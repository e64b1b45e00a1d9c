package cli

import (
	"io"
	"unicode/utf8"
)

// harmless writes what a guest said to a terminal, which is not the guest's to drive:
// escape sequences that only colour or move the cursor are left out, and every other
// control character but tabs and ends of lines is shown as one that nobody can read.
// What comes in pieces is put together.
type harmless struct {
	to    io.Writer
	state escape
	part  []byte // of a character, or a carriage return that may end a line
}

// escape is how far into an escape sequence the text is.
type escape int

const (
	outside escape = iota
	begun          // after ESC
	within         // after ESC [
)

// guestOut is where a guest's text goes: as it is, unless to a terminal.
func (v *voice) guestOut(to io.Writer) io.Writer {
	if !v.tty.out {
		return to
	}
	return &harmless{to: to}
}

func (h *harmless) Write(p []byte) (int, error) {
	text := append(h.part, p...)
	h.part = nil
	out := make([]byte, 0, len(text))
	for len(text) > 0 {
		if !utf8.FullRune(text) || text[0] == '\r' && len(text) == 1 {
			h.part = append([]byte(nil), text...)
			break
		}
		r, n := utf8.DecodeRune(text)
		if r == '\r' && text[1] == '\n' {
			r, n = '\n', 2
		}
		out = h.next(out, r)
		text = text[n:]
	}
	if _, err := h.to.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// next appends what becomes of one character.
func (h *harmless) next(out []byte, r rune) []byte {
	was := h.state
	h.state = outside
	switch {
	case was == begun && r == '[':
		h.state = within
		return out
	case was == begun: // another sequence than we know
		out = utf8.AppendRune(out, utf8.RuneError)
	case was == within && r >= 0x20 && r < 0x40:
		h.state = within
		return out
	case was == within && r >= 0x40 && r < 0x7f:
		return out
	}
	if r == 0x1b {
		h.state = begun
		return out
	}
	return append(out, printable(string(r))...)
}
