package guest

import (
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// sysmonSlack is by how much the runtime's monitor may oversleep under
// emulation.
const sysmonSlack = "4000000" // ns

// calmSysmon lets the Go runtime's monitor wake with other timers. Whenever
// the agent does anything it sleeps for 20 µs fifty times over, then for longer,
// and each time is a timer set, an interrupt and two switches, all of them
// emulated: a tenth of the CPU time of a start. What it would find, a processor
// whose thread waits in the kernel, matters little, since there is a spare one
// (see initMachine).
//
// It is the first thread that the runtime makes, so the one with the least
// number after our own. Threads that it makes inherit its slack: see punctual.
func calmSysmon() error {
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	self, first := os.Getpid(), 0
	for _, e := range entries {
		if tid, err := strconv.Atoi(e.Name()); err == nil && tid != self && (first == 0 || tid < first) {
			first = tid
		}
	}
	return os.WriteFile("/proc/"+strconv.Itoa(first)+"/timerslack_ns", []byte(sysmonSlack), 0)
}

// usualSlack is what the kernel gives the first process.
const usualSlack = 50_000 // ns

// punctual keeps the caller on a thread whose children's timers are as precise
// as usual, until done.
func punctual() (done func()) {
	runtime.LockOSThread()
	_, _, _ = unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, usualSlack, 0)
	return runtime.UnlockOSThread
}
