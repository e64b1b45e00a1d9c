package qemu

import (
	"bytes"
	"encoding/json"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"banger/internal/vmm"
)

// note keeps the reason of the last SHUTDOWN event, since QEMU's exit status is
// 0 for all of them, and that the vCPUs have begun to run, and says when they
// were halted for want of room. Only that makes QEMU stop by itself: other errors of
// a disk are the guest's.
func (m *machine) note(e event) {
	var data struct{ Reason, Action string }
	_ = json.Unmarshal(e.Data, &data) // what is no object has neither
	m.mu.Lock()
	defer m.mu.Unlock()
	switch e.Name {
	case "RESUME":
		if !m.hasResumed() {
			close(m.resumed)
		}
	case "SHUTDOWN":
		m.shutdown = data.Reason
	case "BLOCK_IO_ERROR":
		m.full = m.full || data.Action == "stop"
	case "STOP":
		if m.full && m.halted != nil {
			m.halted()
		}
		m.full = false
	}
}

func (m *machine) hasResumed() bool {
	select {
	case <-m.resumed:
		return true
	default:
		return false
	}
}

// ending is how the machine ended; log is the last line QEMU wrote.
func (m *machine) ending(log string) vmm.Exit {
	m.mu.Lock()
	defer m.mu.Unlock()
	sent, _ := m.signal.(syscall.Signal)
	return exitOf(m.process.Wait(), m.shutdown, sent, log)
}

// exitOf judges by wait status, then by the reason of the SHUTDOWN event; sent
// is the last signal we sent.
func exitOf(status syscall.WaitStatus, shutdown string, sent syscall.Signal, log string) vmm.Exit {
	switch {
	case status.Signaled() && ownFault(status.Signal(), sent):
		return vmm.Exit{Reason: vmm.Crashed, Signal: unix.SignalName(status.Signal()), Message: log}
	case status.Signaled():
		return vmm.Exit{Reason: vmm.Killed, Signal: unix.SignalName(status.Signal())}
	case status.ExitStatus() == 0 && shutdown == "guest-shutdown":
		return vmm.Exit{Reason: vmm.Poweroff}
	case status.ExitStatus() == 0 && (shutdown == "guest-reset" || shutdown == "guest-panic"):
		return vmm.Exit{Reason: vmm.Reset}
	case status.ExitStatus() == 0 && shutdown == "host-signal":
		// QEMU catches TERM, INT and HUP and leaves in good order.
		if sent == 0 {
			sent = syscall.SIGTERM
		}
		return vmm.Exit{Reason: vmm.Killed, Signal: unix.SignalName(sent)}
	}
	return vmm.Exit{Reason: vmm.Crashed, Status: status.ExitStatus(), Message: log}
}

// ownFault tells a signal that a failing program brings on itself, a broken
// seccomp rule among them, from one that was sent.
func ownFault(sig, sent syscall.Signal) bool {
	switch sig {
	case syscall.SIGABRT, syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGILL, syscall.SIGFPE, syscall.SIGSYS, syscall.SIGTRAP:
		return sig != sent
	}
	return false
}

// maxLogLine bounds what lastLine keeps.
const maxLogLine = 1024

// lastLine keeps the last line that has text, without the program's name in
// front.
type lastLine struct{ last, open []byte }

func (l *lastLine) Write(p []byte) (int, error) {
	for rest := p; ; {
		line, more, whole := bytes.Cut(rest, []byte{'\n'})
		l.open = append(l.open, line[:min(len(line), maxLogLine-min(len(l.open), maxLogLine))]...)
		if !whole {
			return len(p), nil
		}
		l.close()
		rest = more
	}
}

func (l *lastLine) close() {
	text := bytes.TrimSpace(l.open)
	// A failed assertion tells where, the line before it what.
	if len(text) > 0 && (len(l.last) == 0 || !bytes.Contains(text, []byte("Assertion `"))) {
		l.last = append(l.last[:0], text...)
	}
	l.open = l.open[:0]
}

func (l *lastLine) String() string {
	l.close()
	text := strings.ToValidUTF8(string(l.last), "?")
	if program, rest, found := strings.Cut(text, ": "); found && strings.Contains(program, "qemu") {
		return rest
	}
	return text
}
