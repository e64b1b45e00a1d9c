package cli

import (
	"os"
	"sync"

	"golang.org/x/term"

	"banger/internal/guestwire"
)

// makeRaw hands the terminal's keys over to the guest and returns what takes
// them back; that may be called any number of times.
func makeRaw() (restore func(), err error) {
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return func() {}, nil
	}
	before, err := term.MakeRaw(fd)
	if err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() { _ = term.Restore(fd, before) }), nil
}

// terminalSize is the size of whichever standard stream is a terminal, and
// the classic one where none is.
func terminalSize() (rows, cols uint16) {
	for _, f := range []*os.File{os.Stdout, os.Stdin, os.Stderr} {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil && w > 0 && h > 0 {
			return uint16(h), uint16(w)
		}
	}
	return 24, 80
}

// resize tells the guest's pty the size our terminal has now.
func resize(s controlled) { _ = s.Control(guestwire.ResizeControl(terminalSize())) }
