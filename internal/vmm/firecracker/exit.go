package firecracker

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/vmm"
	"banger/internal/vmm/child"
)

func drainDeadline() time.Time { return time.Now().Add(drain) }

// powerOff ends a machine whose guest has halted. Firecracker has no switch that a guest could
// turn itself off with; all a kernel does is to say so and to halt.
func (m *machine) powerOff() {
	m.mu.Lock()
	m.off = true
	m.mu.Unlock()
	_ = m.process.Signal(os.Kill)
}

// lastWords are what a kernel says when it is about to halt for good, at a level that
// cannot be turned off: a line, or with when before them the end of one that a program left half said.
// What says them in its place may write to the console.
var lastWords = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(^\r*|\[ *[0-9]+\.[0-9]+\](\[ *T[0-9]+\])? )reboot: (System halted|Power down)\r*$`)
})

// watcher looks for the last words in what the console says.
type watcher struct {
	halted func()
	line   []byte // the end of the one that is being said
}

// maxWords is more than the last words have.
const maxWords = 64

func (w *watcher) Write(p []byte) (int, error) {
	for rest := p; ; {
		text, more, whole := bytes.Cut(rest, []byte{'\n'})
		w.line = append(w.line, text...)
		w.line = append(w.line[:0], w.line[max(0, len(w.line)-maxWords):]...)
		if !whole {
			return len(p), nil
		}
		if lastWords().Match(w.line) {
			w.halted()
		}
		w.line, rest = w.line[:0], more
	}
}

// ending is how the machine ended; log is the last line Firecracker wrote.
func (m *machine) ending(log string) vmm.Exit {
	m.mu.Lock()
	defer m.mu.Unlock()
	sent, _ := m.signal.(syscall.Signal)
	return exitOf(m.process.Wait(), m.off, sent, log)
}

// exitOf judges by wait status; off is that the guest halted, sent the last signal we sent.
func exitOf(status syscall.WaitStatus, off bool, sent syscall.Signal, log string) vmm.Exit {
	switch {
	case off && sent == 0:
		return vmm.Exit{Reason: vmm.Poweroff}
	case status.Signaled() && child.OwnFault(status.Signal(), sent):
		return vmm.Exit{Reason: vmm.Crashed, Signal: unix.SignalName(status.Signal()), Message: log}
	case status.Signaled():
		return vmm.Exit{Reason: vmm.Killed, Signal: unix.SignalName(status.Signal())}
	case status.ExitStatus() == 0:
		return vmm.Exit{Reason: vmm.Reset}
	}
	return vmm.Exit{Reason: vmm.Crashed, Status: status.ExitStatus(), Message: log}
}

// withoutOrigin is what a line of Firecracker's log says, without when and where.
func withoutOrigin(line string) string {
	if _, text, found := strings.Cut(line, "] "); found {
		return text
	}
	return line
}
