package shim

import (
	"os"
	"strings"
	"unicode"

	"banger/internal/paths"
)

// consoleTail is how much of a boot's console is remembered: more than a
// kernel prints after it has said that it panics.
const consoleTail = 32 << 10

// consoleLog writes a guest's console into a file of bounded size with one
// predecessor. It never fails: a full disk costs the log, not the guest.
type consoleLog struct {
	path  string
	limit int64
	file  *os.File // nil after it could not be opened
	size  int64
	tail  []byte // of the present boot
}

func openConsoleLog(dir paths.VM, limit int64) (*consoleLog, error) {
	c := &consoleLog{path: dir.Console(), limit: limit}
	if err := c.open(); err != nil {
		return nil, err
	}
	st, err := c.file.Stat()
	if err != nil {
		return nil, err
	}
	c.size = st.Size()
	return c, nil
}

func (c *consoleLog) open() (err error) {
	c.file, err = os.OpenFile(c.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		c.file = nil
	}
	return err
}

func (c *consoleLog) Write(p []byte) (int, error) {
	c.remember(p)
	for rest := p; len(rest) > 0; {
		if c.size >= c.limit {
			c.rotate()
		}
		n := int(min(int64(len(rest)), c.limit-c.size))
		if c.file != nil {
			_, _ = c.file.Write(rest[:n])
		}
		c.size += int64(n)
		rest = rest[n:]
	}
	return len(p), nil
}

func (c *consoleLog) rotate() {
	c.size = 0
	if c.file != nil {
		_ = c.file.Close()
	}
	_ = os.Rename(c.path, c.path+".1")
	_ = c.open()
}

// remember keeps the end of the console. Moving it only when twice as much has
// come makes a flood cheap.
func (c *consoleLog) remember(p []byte) {
	if len(p) > consoleTail {
		p = p[len(p)-consoleTail:]
	}
	if len(c.tail)+len(p) > 2*consoleTail {
		c.tail = append(c.tail[:0], c.tail[len(c.tail)-consoleTail:]...)
	}
	c.tail = append(c.tail, p...)
}

// newBoot forgets what an earlier boot said.
func (c *consoleLog) newBoot() { c.tail = nil }

// panicked says whether the guest's kernel gave up in this boot, and why. A
// guest that only prints the words fools nobody but itself.
func (c *consoleLog) panicked() (why string, yes bool) {
	_, after, found := strings.Cut(string(c.tail), "Kernel panic - not syncing")
	if !found {
		return "", false
	}
	line, _, _ := strings.Cut(strings.TrimPrefix(after, ": "), "\n")
	return strings.Join(lastLines([]byte(line), 1), ""), true
}

func (c *consoleLog) close() {
	if c.file != nil {
		_ = c.file.Close()
	}
}

// maxLine bounds a line of a console in a message or a record.
const maxLine = 256

// lastLines gives the last n lines that have text, fit for a terminal: a guest
// chooses every byte of its console.
func lastLines(text []byte, n int) []string {
	all := strings.Split(strings.ToValidUTF8(string(text), "?"), "\n")
	var lines []string
	for i := len(all) - 1; i >= 0 && len(lines) < n; i-- {
		line := strings.TrimRightFunc(strings.Map(printable, all[i]), unicode.IsSpace)
		if r := []rune(line); len(r) > maxLine {
			line = string(r[:maxLine]) + "…"
		}
		if line != "" {
			lines = append(lines, line)
		}
	}
	for i, j := 0, len(lines)-1; i < j; i, j = i+1, j-1 {
		lines[i], lines[j] = lines[j], lines[i]
	}
	return lines
}

func printable(r rune) rune {
	switch {
	case r == '\t':
		return ' '
	case !unicode.IsPrint(r):
		return -1
	}
	return r
}
