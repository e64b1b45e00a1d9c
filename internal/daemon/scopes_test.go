package daemon

import (
	"bufio"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"banger"
	"banger/internal/paths"
)

// A VM's processes are its shim and what is of its shim's session; a person's
// shell that stands in the same directory is neither.
func TestScopeTakesTheProcessesOfOneVM(t *testing.T) {
	vms, id := t.TempDir(), banger.NewID()
	dir := filepath.Join(vms, id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/shim", []byte("sleep 600 >/dev/null & echo $!; wait"), 0o600); err != nil {
		t.Fatal(err)
	}
	begin := func(name string, args ...string) (*exec.Cmd, *bufio.Reader) {
		cmd := exec.Command(name, args...)
		cmd.Dir, cmd.SysProcAttr = dir, &syscall.SysProcAttr{Setsid: true}
		out, _ := cmd.StdoutPipe()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); _ = cmd.Wait() })
		return cmd, bufio.NewReader(out)
	}
	begin("sleep", "600")
	shim, out := begin("sh", "shim", dir)
	line, err := out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	vmm, _ := strconv.Atoi(strings.TrimSpace(line))

	var moved []int
	s := &scopes{ctx: t.Context(), vms: vms, log: slog.New(slog.DiscardHandler), move: func(_ context.Context, name, _ string, pids []int) error {
		if !strings.HasPrefix(name, "banger-vm-"+banger.ShortID(id)) {
			t.Errorf("the scope is called %s", name)
		}
		moved = append(moved, pids...)
		return nil
	}}
	s.started(paths.VM(dir))
	s.started(paths.VM(filepath.Join(vms, banger.NewID()))) // which has no process
	s.close()
	s.inside = func(pid int) bool { return pid != shim.Process.Pid }
	s.takeOut() // of where it is no more
	s.close()
	want := []int{shim.Process.Pid, vmm}
	slices.Sort(moved)
	slices.Sort(want)
	if !slices.Equal(moved, want) {
		t.Errorf("moved %v, want %v", moved, want)
	}
	moved, s.inside = nil, func(pid int) bool { return pid == shim.Process.Pid }
	s.takeOut()
	s.close()
	if slices.Sort(moved); !slices.Equal(moved, want) {
		t.Errorf("an earlier daemon left %v, and moved %v", want, moved)
	}
}
