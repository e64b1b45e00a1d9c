package boot

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrTimer says that the kernel does not know how fast its interrupt timer
// runs, or has none. The next boot knows better.
var ErrTimer = errors.New("the kernel's timer is of no use")

// checkTimer looks at what the kernel has found out about its interrupt timer.
//
// An emulated kernel measures it against the time stamp counter, during 100 ms
// of its boot. Where the host lets the processor stand still just before the
// first of the samples, the timer does not seem to move, and the kernel goes on
// without one: the first sleep never ends (seen once in 120 boots on a host with
// ten times the work it could do). Just before the last, all later sleeps are too
// long, in every fork of the machine as well.
func checkTimer(cmdline map[string]string) error {
	want, err := strconv.ParseFloat(cmdline["banger.timer_khz"], 64)
	if err != nil {
		return nil // the host did not say how fast it runs: it is no emulation
	}
	table, err := os.ReadFile("/proc/timer_list")
	if err != nil {
		return nil
	}
	// Taken for slower than it is, it fires early, which is only work.
	if got := timerKHz(string(table)); got < want/2 || got > want*1.25 {
		return fmt.Errorf("%w: it was measured as %.0f kHz, and has %.0f", ErrTimer, got, want)
	}
	return nil
}

// timerKHz is the frequency of a processor's timer in a table of the kernel's,
// 0 where it has none.
func timerKHz(table string) float64 {
	_, device, found := strings.Cut(table, "Clock Event Device: lapic\n")
	if !found {
		return 0
	}
	var mult, shift uint64
	for line := range strings.Lines(device) {
		key, value, _ := strings.Cut(line, ":")
		n, _ := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
		switch strings.TrimSpace(key) {
		case "mult":
			mult = n
		case "shift": // the last of the two
			shift = n
			return float64(mult) * 1e6 / float64(uint64(1)<<(shift&63))
		}
	}
	return 0
}

// Reset resets the machine at once and does not return. Nothing is written,
// nothing waits: there is nothing to lose yet, and may be no timer to wait with.
func Reset() {
	_ = os.WriteFile("/proc/sysrq-trigger", []byte("b"), 0)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	select {}
}
