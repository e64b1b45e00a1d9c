package guest

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// defaultTimeout is what processes have where the host did not say.
const defaultTimeout = 10 * time.Second

// beginEnd says that the machine ends now; false if it was said before.
// Nothing is started any more.
func (a *agent) beginEnd() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	first := !a.ending
	a.ending = true
	return first
}

// shutdown ends all processes and makes what was written safe: TERM at once,
// KILL at half of the timeout. When it returns the machine can end.
func (a *agent) shutdown(timeout time.Duration) error {
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	if !a.end(syscall.SIGTERM, timeout/2) {
		a.end(syscall.SIGKILL, timeout/2)
	}
	a.lastWords(timeout / 2)
	if err := a.machine.down(); err != nil {
		return fmt.Errorf("cannot make the file systems read-only: %w", err)
	}
	return nil
}

// end signals all processes until none is left or the time is over. What was
// started in between gets its signal too.
func (a *agent) end(sig syscall.Signal, timeout time.Duration) bool {
	again := time.NewTicker(timeout / 10)
	defer again.Stop()
	late := time.After(timeout)
	a.machine.signalAll(int(sig))
	a.machine.signalAll(int(syscall.SIGCONT))
	for {
		select {
		case <-a.procs.quiet():
			return true
		case <-late:
			return false
		case <-again.C:
			if sig == syscall.SIGKILL {
				a.machine.signalAll(int(sig))
			}
		}
	}
}

// lastWords lets the streams of commands tell how they ended, if their reader
// does not stand still.
func (a *agent) lastWords(timeout time.Duration) {
	said := make(chan struct{})
	go func() {
		a.commands.Wait()
		close(said)
	}()
	select {
	case <-said:
	case <-time.After(timeout):
	}
}

func (a *agent) isEnding() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ending
}

// finish shuts down by itself and ends the machine.
func (a *agent) finish(reboot bool) {
	if !a.beginEnd() {
		return
	}
	if err := a.shutdown(defaultTimeout); err != nil {
		fmt.Fprintln(os.Stderr, "banger:", err)
	}
	a.machine.end(reboot)
}

// obeySignals does what the signals to PID 1 ask for that busybox's and other
// small tools' poweroff, halt and reboot send. It takes all others as well:
// PID 1 must not end, and a signal it ignored would be ignored by all it
// starts.
func (a *agent) obeySignals() {
	sent := make(chan os.Signal, 16)
	for sig := syscall.Signal(1); sig < 32; sig++ {
		if sig != syscall.SIGCHLD && sig != syscall.SIGURG { // both are harmless, and frequent
			signal.Notify(sent, sig)
		}
	}
	for s := range sent {
		switch s {
		case syscall.SIGTERM, syscall.SIGINT:
			a.finish(true)
		case syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPWR:
			a.finish(false)
		}
	}
}
