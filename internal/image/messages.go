package image

import (
	"bytes"
	"cmp"
	"strings"
	"sync"
)

// maxMessages bounds what is kept of mmdebstrap's messages.
const maxMessages = 64 << 10

// stages says in our words what mmdebstrap's information lines mean.
var stages = []struct{ prefix, stage string }{
	{"running apt-get update", "fetching package lists"},
	{"downloading packages", "downloading packages"},
	{"extracting archives", "unpacking the base system"},
	{"installing essential", "configuring the base system"},
	{"installing remaining", "installing packages"},
	{"creating tarball", "writing the file system"},
}

// messageWriter reads mmdebstrap's standard error: it reports stages and
// keeps the end for an error message.
type messageWriter struct {
	progress func(string)

	mu   sync.Mutex
	line []byte
	kept []byte
}

func (m *messageWriter) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept = append(m.kept, p...)
	m.kept = m.kept[max(0, len(m.kept)-maxMessages):]
	m.line = append(m.line, p...)
	for {
		line, rest, found := bytes.Cut(m.line, []byte("\n"))
		if !found {
			break
		}
		m.report(string(line))
		m.line = rest
	}
	m.line = m.line[max(0, len(m.line)-maxMessages):]
	return len(p), nil
}

func (m *messageWriter) report(line string) {
	info, ok := strings.CutPrefix(line, "I: ")
	if !ok {
		return
	}
	for _, s := range stages {
		if strings.HasPrefix(info, s.prefix) {
			m.progress(s.stage)
		}
	}
}

// errors are the lines in which it, or apt below it, named an error.
func (m *messageWriter) errors() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var lines []string
	for line := range strings.Lines(string(m.kept)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "E: "); ok {
			lines = append(lines, rest)
		}
	}
	return strings.Join(lines[max(0, len(lines)-5):], "; ")
}

// tail is what to tell a person about its failure.
func (m *messageWriter) tail(err error) string { return cmp.Or(m.errors(), err.Error()) }
