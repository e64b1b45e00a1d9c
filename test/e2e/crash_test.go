package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func (w home) daemonPID(t *testing.T) int {
	t.Helper()
	for _, line := range strings.Split(w.must(t, "daemon", "status", "--json"), "\n") {
		if _, v, ok := strings.Cut(line, `"pid":`); ok {
			pid, _ := strconv.Atoi(strings.Trim(v, " ,"))
			return pid
		}
	}
	t.Fatal("daemon status names no pid")
	return 0
}

// leftovers is everything of VMs that is still in this world.
func (w home) leftovers() (left []string) {
	for _, pattern := range []string{"vms/*", "vms/.trash/*"} {
		entries, _ := filepath.Glob(filepath.Join(w.State(), pattern))
		for _, e := range entries {
			if filepath.Base(e) != ".trash" {
				left = append(left, e)
			}
		}
	}
	for _, p := range w.processes() {
		if !strings.Contains(p, "daemon run") {
			left = append(left, p)
		}
	}
	return left
}

func (w home) expectNothingLeft(t *testing.T) {
	t.Helper()
	w.must(t, "ps", "-a") // the next command puts right what was left
	var left []string
	defer func() {
		if len(left) > 0 {
			t.Logf("left:\n%s", strings.Join(left, "\n"))
		}
	}()
	eventually(t, "leftovers go", func() bool {
		left = w.leftovers()
		// Before the directory is made and once it has gone there is the row alone.
		for _, id := range strings.Fields(w.must(t, "ps", "-a", "-q")) {
			left = append(left, "the row of "+id)
		}
		return len(left) == 0
	})
}

// showAdopted is show once the daemon that is new has heard of the VM's shim.
func (w home) showAdopted(t *testing.T, name string) (vm shown) {
	t.Helper()
	eventually(t, "the daemon hears of the shim of "+name, func() bool {
		vm = w.show(t, name)
		return vm.ShimPID != 0
	})
	return vm
}

func TestDaemonKilledWhileAnExecCounts(t *testing.T) {
	t.Parallel()
	w := borrowedWorld(t, "counting")
	w.start(t, "counter")
	before := w.show(t, "counter")
	cmd := w.Command("exec", "counter", "--", "sh", "-c", "for i in $(seq 1 200); do echo $i; sleep 0.02; done")
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	next := 1
	for lines := bufio.NewScanner(out); lines.Scan(); next++ {
		if lines.Text() != strconv.Itoa(next) {
			t.Fatalf("line %d is %q", next, lines.Text())
		}
		if next == 40 {
			kill(t, w.daemonPID(t))
		}
	}
	if err := cmd.Wait(); err != nil || next != 201 {
		t.Fatalf("ended before %d: %v", next, err)
	}
	after := w.showAdopted(t, "counter")
	if after.State != "running" || after.ShimPID != before.ShimPID || after.BootID != before.BootID {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

func TestStopKeepsWhatWasWritten(t *testing.T) {
	shared.start(t, "writer")
	cmd := shared.Command("exec", "writer", "--", "sh", "-c",
		`head -c 20M /dev/urandom >/root/synced && sha256sum </root/synced >/root/sum && sync && echo synced
		 head -c 200M /dev/zero >/root/rest; sleep 600`)
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, out, "synced\n")
	eventually(t, "the write is under way", func() bool {
		size := shared.Banger("exec", "writer", "--", "stat", "-c", "%s", "/root/rest")
		n, _ := strconv.Atoi(strings.TrimSpace(size.Stdout))
		return n > 1<<20
	})
	shared.must(t, "exec", "writer", "--", "sh", "-c", "echo before the stop >/root/note")
	shared.must(t, "stop", "--timeout", "5m", "writer") // what was written goes to the host's disk
	_ = cmd.Wait()
	shared.must(t, "start", "writer")
	got := shared.must(t, "exec", "writer", "--", "sh", "-c",
		"cat /root/note; sha256sum </root/synced | cmp - /root/sum && echo same; test -s /root/rest && echo rest")
	if got != "before the stop\nsame\nrest" {
		t.Errorf("after the stop: %q", got)
	}
}

func TestVMMKilled(t *testing.T) {
	shared.start(t, "vmm-killed")
	vm := shared.show(t, "vmm-killed")
	kill(t, vm.VMMPID)
	eventually(t, "state is error", func() bool { return shared.show(t, "vmm-killed").State == "error" })
	eventually(t, "the shim ends", func() bool { return !alive(vm.ShimPID) })
	if got := shared.show(t, "vmm-killed"); got.LastError == "" {
		t.Error("no last error")
	}
	shared.must(t, "start", "vmm-killed")
	shared.must(t, "exec", "vmm-killed", "--", "true")
}

func TestShimKilledTakesItsVMMAlong(t *testing.T) {
	shared.start(t, "shim-killed")
	vm := shared.show(t, "shim-killed")
	kill(t, vm.ShimPID)
	eventually(t, "the VMM ends", func() bool { return !alive(vm.VMMPID) })
	eventually(t, "state is error", func() bool { return shared.show(t, "shim-killed").State == "error" })
	shared.must(t, "start", "shim-killed")
	shared.must(t, "exec", "shim-killed", "--", "true")
}

// Each is killed after a different time, so that creation is hit at many
// points; afterwards the world is as if it had never begun.
func TestClientKilledDuringCreate(t *testing.T) {
	t.Parallel()
	w := borrowedWorld(t, "client-killed")
	for i, after := range moments {
		cmd := w.Command("run", "--rm", "--name", fmt.Sprintf("gone-%d", i), "--", "sleep", "600")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(after)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		w.expectNothingLeft(t)
	}
}

func TestDaemonKilledDuringCreate(t *testing.T) {
	t.Parallel()
	w := borrowedWorld(t, "daemon-killed")
	for i, after := range moments {
		name := fmt.Sprintf("half-%d", i)
		pid := w.daemonPID(t)
		cmd := w.Command("run", "--rm", "--name", name, "--", "sleep", "600")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(after)
		kill(t, pid)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		w.expectNothingLeft(t)
	}
}

// moments of a creation, which takes some hundred milliseconds to the shim's
// start and some seconds to the guest's.
var moments = []time.Duration{
	5 * time.Millisecond, 30 * time.Millisecond, 60 * time.Millisecond, 120 * time.Millisecond,
	300 * time.Millisecond, 1200 * time.Millisecond,
}

func TestInterruptDuringCreateUndoesIt(t *testing.T) {
	t.Parallel()
	w := borrowedWorld(t, "interrupted")
	begun := func() bool { return len(w.others("")) > 0 || there(w.State(), "vms", ".new-*") }
	w.amid(t, func() { w.removeWhole(t, "never") }, begun, func(cmd *exec.Cmd) bool {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		if got := cmd.ProcessState.ExitCode(); got != 130 {
			t.Errorf("status %d, want 130", got)
		}
		return true
	}, "run", "--cold", "--name", "never", "--", "true")
	w.expectNothingLeft(t)
}
