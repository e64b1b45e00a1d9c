package shim

import (
	"os/exec"
	"syscall"
	"testing"
)

// TestProcessWhoseSessionLivesOnIsGone needs a kernel before 6.15 to fail: later
// ones answer as if there were no session.
func TestProcessWhoseSessionLivesOnIsGone(t *testing.T) {
	leader := exec.Command("sh", "-c", "sleep 60 >/dev/null 2>&1 & read wait")
	leader.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdin, err := leader.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := leader.Start(); err != nil {
		t.Fatal(err)
	}
	id := identityOf(t, leader.Process.Pid)
	t.Cleanup(func() { syscall.Kill(-id.PID, syscall.SIGKILL) }) // the sleep is in its group
	stdin.Close()
	leader.Wait()
	if f, err := id.open(); f != nil || err != nil {
		t.Errorf("a process that ended: %v, %v", f, err)
	}
}

func identityOf(t *testing.T, pid int) Identity {
	t.Helper()
	start, err := startTime(pid)
	if err != nil {
		t.Fatal(err)
	}
	boot, err := hostBoot()
	if err != nil {
		t.Fatal(err)
	}
	return Identity{BootID: boot, PID: pid, Start: start}
}
