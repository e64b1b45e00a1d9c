package qemu

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"banger"
	"banger/internal/vmm"
)

// clockArgs tells an emulated kernel how fast its time stamp counter runs, and
// our agent that it is emulated and what the kernel is to find out.
//
// TCG hands the host's own counter through (measured: a guest that calibrates
// finds the host's frequency to 1 kHz). Without being told, a kernel
// calibrates against an emulated timer, which on a busy host fails about one
// boot in ten and hangs; and without tsc=reliable the kernel's watchdog
// condemns the counter on one busy boot in three, after which time moves in
// steps of 4 ms. Under KVM there is kvm-clock.
func clockArgs(accel vmm.Accel) ([]string, error) {
	if accel == vmm.KVM {
		return nil, nil
	}
	cpuinfo, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return nil, err
	}
	khz, err := tscKHz(string(cpuinfo))
	if err != nil {
		return nil, banger.Errorf(banger.Unavailable, "cannot learn the host's clock frequency: %w", err)
	}
	return []string{
		"tsc_early_khz=" + strconv.FormatInt(khz, 10), "tsc=reliable",
		"banger.emulated=1", "banger.timer_khz=" + strconv.Itoa(timerKHz),
	}, nil
}

// timerKHz is how fast QEMU's local APIC counts as Linux sets it up: 1 GHz in
// steps of 16. The kernel measures it, and cannot be told.
const timerKHz = 1_000_000 / 16

// tscKHz reads the frequency of the host's time stamp counter from
// /proc/cpuinfo. "cpu MHz" is what the core runs at just now; bogomips is
// twice the counter's frequency in MHz, cut to two decimals (2 ppm).
func tscKHz(cpuinfo string) (int64, error) {
	for lines := bufio.NewScanner(strings.NewReader(cpuinfo)); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		if strings.TrimSpace(key) != "bogomips" {
			continue
		}
		mips, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil || mips < 100 || mips > 100_000 {
			return 0, fmt.Errorf("bogomips of %q in /proc/cpuinfo", value)
		}
		return int64(mips*500 + 0.5), nil
	}
	return 0, fmt.Errorf("no bogomips in /proc/cpuinfo")
}
