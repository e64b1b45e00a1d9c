package vmm

import (
	"bytes"
	"strings"
)

// MaxLogLine bounds what a LastLine keeps.
const MaxLogLine = 1024

// LastLine is a writer that keeps the last line with text, for what a VMM says as it gives up. A
// line that says less than the one before is left out by Less; nil leaves out none.
type LastLine struct {
	Less func(line []byte) bool

	last, open []byte
}

// Write implements io.Writer.
func (l *LastLine) Write(p []byte) (int, error) {
	for rest := p; ; {
		line, more, whole := bytes.Cut(rest, []byte{'\n'})
		l.open = append(l.open, line[:min(len(line), MaxLogLine-min(len(l.open), MaxLogLine))]...)
		if !whole {
			return len(p), nil
		}
		l.close()
		rest = more
	}
}

func (l *LastLine) close() {
	text := bytes.TrimSpace(l.open)
	if len(text) > 0 && (len(l.last) == 0 || l.Less == nil || !l.Less(text)) {
		l.last = append(l.last[:0], text...)
	}
	l.open = l.open[:0]
}

// String is the line, or what there is of one that was not ended.
func (l *LastLine) String() string {
	l.close()
	return strings.ToValidUTF8(string(l.last), "?")
}
