package firecracker

import (
	"encoding/binary"
	"strings"
	"syscall"
	"testing"

	"banger/internal/vmm"
)

func TestLastWordsAreHeardWhereverTheyAreCut(t *testing.T) {
	const said = "[    5.1] reboot: System halted\r\n"
	for cut := range len(said) {
		heard := 0
		w := &watcher{halted: func() { heard++ }}
		w.Write([]byte("boot\r\n" + said[:cut]))
		w.Write([]byte(said[cut:]))
		if heard == 0 {
			t.Errorf("not heard when cut at %d", cut)
		}
	}
	w := &watcher{halted: func() { t.Error("it was not said") }}
	for _, said := range []string{
		"reboot: System is going down", "System halted", "x reboot: System halted", "reboot: System halted by me",
		"[x] reboot: Power down", strings.Repeat(" ", maxWords) + "reboot: Power down",
		"reboot: Power down" + strings.Repeat("\r", maxWords) + "x",
	} {
		w.Write([]byte(said + "\r\n"))
	}
	heard := 0
	w = &watcher{halted: func() { heard++ }}
	for n, said := range []string{"reboot: Power down", "half a line[   16.2] reboot: System halted", strings.Repeat("long", maxWords) + "[ 1.2] reboot: Power down"} {
		w.Write([]byte(said + "\r\n"))
		if heard != n+1 {
			t.Errorf("not heard: %q", said)
		}
	}
}

func TestEndIsJudgedByWhoCausedIt(t *testing.T) {
	signaled := func(s syscall.Signal) syscall.WaitStatus { return syscall.WaitStatus(s) }
	exited := func(n int) syscall.WaitStatus { return syscall.WaitStatus(n << 8) }
	for _, c := range []struct {
		what   string
		status syscall.WaitStatus
		off    bool
		sent   syscall.Signal
		want   vmm.Exit
	}{
		{"the guest halted", signaled(syscall.SIGKILL), true, 0, vmm.Exit{Reason: vmm.Poweroff}},
		{"the guest reset", exited(0), false, 0, vmm.Exit{Reason: vmm.Reset}},
		{"killed", signaled(syscall.SIGKILL), false, syscall.SIGKILL, vmm.Exit{Reason: vmm.Killed, Signal: "SIGKILL"}},
		{"killed while it halted", signaled(syscall.SIGKILL), true, syscall.SIGKILL, vmm.Exit{Reason: vmm.Killed, Signal: "SIGKILL"}},
		{"killed by another", signaled(syscall.SIGTERM), false, 0, vmm.Exit{Reason: vmm.Killed, Signal: "SIGTERM"}},
		{"aborted", signaled(syscall.SIGABRT), false, 0, vmm.Exit{Reason: vmm.Crashed, Signal: "SIGABRT", Message: "why"}},
		{"gave up", exited(148), false, 0, vmm.Exit{Reason: vmm.Crashed, Status: 148, Message: "why"}},
	} {
		if got := exitOf(c.status, c.off, c.sent, "why"); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.what, got, c.want)
		}
	}
}

func TestLastLineIsWithoutWhenAndWhere(t *testing.T) {
	for line, want := range map[string]string{
		"2026-01-01T00:00:00 [banger:fc_vcpu 0] it failed": "it failed",
		"it failed": "it failed",
	} {
		if got := withoutOrigin(line); got != want {
			t.Errorf("%q", got)
		}
	}
}

// A guest leaves the sum of the pseudo header where the checksum goes: then all from there on
// sums up to nothing.
func TestChecksumThatTheGuestLeftIsPutIn(t *testing.T) {
	for _, size := range []int{20, 21, 1460, 65001} {
		frame := make([]byte, 34+size)
		for i := range frame {
			frame[i] = byte(i * 7)
		}
		const start, offset = 34, 16
		pseudo := uint16(0x1234)
		binary.BigEndian.PutUint16(frame[start+offset:], pseudo)
		header := []byte{needChecksum, 0, 0, 0, 0, 0, start, 0, offset, 0}
		finish(header, frame)
		// Whoever receives it sums the pseudo header and all the rest.
		sum := uint32(pseudo) + uint32(plainSum(frame[start:]))
		if sum = sum>>16 + sum&0xffff; sum != 0xffff {
			t.Errorf("%d bytes: the sum is %#x", size, sum)
		}
	}
	frame := []byte{1, 2, 3, 4}
	finish([]byte{needChecksum, 0, 0, 0, 0, 0, 200, 0, 16, 0}, frame) // beyond the frame
	finish([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, frame)               // nothing is left to do
	if frame[0] != 1 || frame[3] != 4 {
		t.Errorf("%v", frame)
	}
}

func plainSum(b []byte) uint16 {
	var sum uint32
	for i := range b {
		if i%2 == 0 {
			sum += uint32(b[i]) << 8
		} else {
			sum += uint32(b[i])
		}
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
