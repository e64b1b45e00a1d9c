package qemu

import (
	"bytes"
	"encoding/json"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"banger/internal/vmm"
	"banger/internal/vmm/child"
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
	case status.Signaled() && child.OwnFault(status.Signal(), sent):
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

// newLastLine keeps the last line that QEMU says. A failed assertion tells where, the line before
// it what.
func newLastLine() *vmm.LastLine {
	return &vmm.LastLine{Less: func(line []byte) bool { return bytes.Contains(line, []byte("Assertion `")) }}
}

// withoutProgram is what a line of QEMU's says, without the program's name in front.
func withoutProgram(line string) string {
	if program, rest, found := strings.Cut(line, ": "); found && strings.Contains(program, "qemu") {
		return rest
	}
	return line
}
