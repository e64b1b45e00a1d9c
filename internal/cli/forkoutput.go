package cli

import (
	"bytes"
	"fmt"
	"strings"
	"sync"

	"banger/internal/guestwire"
)

// How much is kept of what a command writes in one copy, and how long a line
// may become before it is shown in pieces.
const (
	keptOutput  = 1 << 20
	longestLine = 64 << 10
)

// forkOutput takes one output of a command in one copy.
type forkOutput interface {
	Write([]byte) (int, error)
	end() // nothing more comes
}

// outputs says where a command's output goes: into the result for JSON, else
// line by line to stderr.
func (r *forkRun) outputs(result *forkResult) (out, errs forkOutput) {
	if r.out.json {
		return &keptText{text: &result.Stdout, truncated: &result.Truncated}, &keptText{text: &result.Stderr, truncated: &result.Truncated}
	}
	width := 0
	for _, vm := range r.forks.VMs {
		width = max(width, len(vm.Name))
	}
	prefix := fmt.Sprintf("%-*s | ", width, result.Name)
	emit := func(line string) { r.app.line(prefix + printable(line)) }
	return &lineWriter{emit: emit}, &lineWriter{emit: emit}
}

// keptText keeps the beginning of what is written.
type keptText struct {
	text      *string
	truncated *bool
	kept      bytes.Buffer
}

func (k *keptText) Write(p []byte) (int, error) {
	k.kept.Write(p[:min(len(p), keptOutput-k.kept.Len())])
	return len(p), nil
}

func (k *keptText) end() {
	*k.text = strings.ToValidUTF8(k.kept.String(), "\uFFFD")
	if k.kept.Len() == keptOutput {
		*k.truncated = true
	}
}

// lineWriter hands on what is written line by line.
type lineWriter struct {
	emit func(string)
	rest []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	for {
		line, rest, whole := bytes.Cut(w.rest, []byte("\n"))
		if !whole && len(line) < longestLine {
			return len(p), nil
		}
		w.emit(strings.TrimSuffix(string(line), "\r"))
		w.rest = rest
	}
}

func (w *lineWriter) end() {
	if len(w.rest) > 0 {
		w.emit(string(w.rest))
		w.rest = nil
	}
}

// streamGroup sends what is sent to it to all of its streams, to those that
// join later too.
type streamGroup struct {
	mu   sync.Mutex
	all  []*guestwire.Stream
	sent []guestwire.Control
}

func (g *streamGroup) add(s *guestwire.Stream) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all = append(g.all, s)
	for _, c := range g.sent {
		_ = s.Control(c)
	}
}

// Control never fails: a command that has ended needs no signal.
func (g *streamGroup) Control(c guestwire.Control) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sent = append(g.sent, c)
	for _, s := range g.all {
		_ = s.Control(c)
	}
	return nil
}
