package qemu

import (
	"strings"
	"syscall"
	"testing"

	"banger/internal/vmm"
)

// exited and signalled build wait statuses as the kernel does.
func exited(status int) syscall.WaitStatus            { return syscall.WaitStatus(status << 8) }
func signalled(sig syscall.Signal) syscall.WaitStatus { return syscall.WaitStatus(sig) }

func TestExitIsJudgedByStatusAndEvent(t *testing.T) {
	const none = syscall.Signal(0)
	for _, c := range []struct {
		name     string
		status   syscall.WaitStatus
		shutdown string
		sent     syscall.Signal
		want     vmm.Exit
	}{
		{"poweroff", exited(0), "guest-shutdown", none, vmm.Exit{Reason: vmm.Poweroff}},
		{"reset", exited(0), "guest-reset", none, vmm.Exit{Reason: vmm.Reset}},
		{"panic device", exited(0), "guest-panic", none, vmm.Exit{Reason: vmm.Reset}},
		{"interrupted by us", exited(0), "host-signal", syscall.SIGINT, vmm.Exit{Reason: vmm.Killed, Signal: "SIGINT"}},
		{"terminated by another", exited(0), "host-signal", none, vmm.Exit{Reason: vmm.Killed, Signal: "SIGTERM"}},
		{"killed", signalled(syscall.SIGKILL), "", none, vmm.Exit{Reason: vmm.Killed, Signal: "SIGKILL"}},
		{"killed while shutting down", signalled(syscall.SIGKILL), "guest-shutdown", syscall.SIGKILL, vmm.Exit{Reason: vmm.Killed, Signal: "SIGKILL"}},
		{"aborted", signalled(syscall.SIGABRT), "", none, vmm.Exit{Reason: vmm.Crashed, Signal: "SIGABRT", Message: "said"}},
		{"broke the sandbox", signalled(syscall.SIGSYS), "", none, vmm.Exit{Reason: vmm.Crashed, Signal: "SIGSYS", Message: "said"}},
		{"aborted by us", signalled(syscall.SIGABRT), "", syscall.SIGABRT, vmm.Exit{Reason: vmm.Killed, Signal: "SIGABRT"}},
		{"gave up", exited(1), "", none, vmm.Exit{Reason: vmm.Crashed, Status: 1, Message: "said"}},
		{"left without a reason", exited(0), "", none, vmm.Exit{Reason: vmm.Crashed, Message: "said"}},
	} {
		if got := exitOf(c.status, c.shutdown, c.sent, "said"); got != c.want {
			t.Errorf("%s: exit = %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestLastLineIsWhatWentWrong(t *testing.T) {
	for _, c := range []struct {
		name, want string
		writes     []string
	}{
		{"nothing said", "", nil},
		{"program's name cut off", "could not open it", []string{"qemu-system-x86_64: could not open it\n"}},
		{"torn line", "one two", []string{"first\none ", "two"}},
		{"empty lines skipped", "kept", []string{"kept\n\n  \n"}},
		{"assertion skipped", "error: what", []string{"qemu-system-x86_64: error: what\nqemu: ../a.c:3: f: Assertion `x' failed.\n"}},
		{"only an assertion", "../a.c:3: f: Assertion `x' failed.", []string{"qemu: ../a.c:3: f: Assertion `x' failed.\n"}},
		{"bounded", strings.Repeat("y", vmm.MaxLogLine), []string{strings.Repeat("y", 600), strings.Repeat("y", 600) + "\n"}},
	} {
		l := newLastLine()
		for _, w := range c.writes {
			if n, err := l.Write([]byte(w)); n != len(w) || err != nil {
				t.Fatalf("%s: Write = %d, %v", c.name, n, err)
			}
		}
		if got := withoutProgram(l.String()); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
