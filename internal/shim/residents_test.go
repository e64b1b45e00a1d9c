package shim

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"banger"
	"banger/internal/paths"
)

// placeOf makes a VM's directory below a directory of its own.
func placeOf(t *testing.T) (vms string, dir paths.VM) {
	t.Helper()
	vms = t.TempDir()
	dir = paths.VM(filepath.Join(vms, banger.NewID()))
	if err := os.Mkdir(string(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	return vms, dir
}

// standIn starts a process that stands in dir.
func standIn(t *testing.T, dir paths.VM) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	cmd.Dir = string(dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

// leftBehind makes what a shim that ended would leave if its VMM did not end with
// it: a process of its session, and a lock that names it. It gives the pid.
func leftBehind(t *testing.T, dir paths.VM) int {
	t.Helper()
	leader := exec.Command("sh", "-c", "sleep 600 </dev/null >/dev/null 2>&1 & echo $!; read line")
	leader.Dir = string(dir)
	leader.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, _ := leader.StdinPipe()
	out, _ := leader.StdoutPipe()
	if err := leader.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	boot, _ := hostBoot()
	start, err := startTime(leader.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(Identity{BootID: boot, PID: leader.Process.Pid, Start: start})
	if err := os.WriteFile(dir.ShimLock(), text, 0o600); err != nil {
		t.Fatal(err)
	}
	in.Close()
	_ = leader.Wait()
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	return pid
}

// killOrphans gives the pids that were killed.
func killOrphans(t *testing.T, vms string) (pids []int) {
	t.Helper()
	killed, err := KillOrphans(t.Context(), vms)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range killed {
		pids = append(pids, r.PID)
	}
	return pids
}

func TestVMMWithoutShimIsAnOrphan(t *testing.T) {
	vms, dir := placeOf(t)
	pid := leftBehind(t, dir)
	gone := processEnd(t, pid)
	if got := killOrphans(t, vms); len(got) != 1 || got[0] != pid {
		t.Fatalf("killed %v, want %d", got, pid)
	}
	gone()
}

func TestShimWhoseDirectoryIsDeletedIsAnOrphan(t *testing.T) {
	vms, dir := placeOf(t)
	c, err := starter(t).Start(t.Context(), dir, fakeLaunch(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	status, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	gone := processEnd(t, status.VMMPID)
	if err := os.RemoveAll(string(dir)); err != nil {
		t.Fatal(err)
	}
	if got := killOrphans(t, vms); len(got) != 1 || got[0] != status.Shim.PID {
		t.Fatalf("killed %v, want %d", got, status.Shim.PID)
	}
	gone()
}

func TestOthersThatStandInADirectoryAreLeftAlone(t *testing.T) {
	vms, dir := placeOf(t)
	c, err := starter(t).Start(t.Context(), dir, fakeLaunch(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	status, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	shell := standIn(t, dir)
	if got := killOrphans(t, vms); len(got) != 0 {
		t.Fatalf("killed %v", got)
	}
	all, err := Residents(vms)
	if err != nil {
		t.Fatal(err)
	}
	roles := map[int]bool{}
	for _, r := range all {
		roles[r.PID] = r.Shim
		if !r.InPlace || r.VM != filepath.Base(string(dir)) {
			t.Errorf("%+v", r)
		}
		if r.PID == status.VMMPID && r.Session != status.Shim.PID {
			t.Errorf("the VMM is of session %d, want its shim's %d", r.Session, status.Shim.PID)
		}
	}
	if shim, known := roles[status.Shim.PID]; !shim || !known || len(roles) != 3 || roles[shell.Process.Pid] {
		t.Errorf("residents are %+v", all)
	}
}

// A number that another process has by now is no session of ours.
func TestSessionOfAnotherTimeIsLeftAlone(t *testing.T) {
	vms, dir := placeOf(t)
	pid := leftBehind(t, dir)
	last, _, err := Alive(dir)
	if err != nil {
		t.Fatal(err)
	}
	start, err := startTime(pid)
	if err != nil {
		t.Fatal(err)
	}
	last.Start = start + 1
	text, _ := json.Marshal(last)
	if err := os.WriteFile(dir.ShimLock(), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := killOrphans(t, vms); len(got) != 0 {
		t.Fatalf("killed %v", got)
	}
}
