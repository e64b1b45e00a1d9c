package shim

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/guest"
	"banger/internal/guestlink"
	"banger/internal/guestwire"
	"banger/internal/paths"
	"banger/internal/vmm"
	"banger/internal/vmm/vmmtest"
)

// TestMain is a shim where a test starts this binary as one, and the agent
// where the fake does: both are processes of their own, as in life.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 3 && os.Args[1] == "shim":
		err := Main(context.Background(), os.Args[2], Options{Build: "test", Driver: drivers, Network: testNetwork, Layers: testLayers})
		if err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	case len(os.Args) == 2 && os.Args[1] == "serve":
		os.Exit(guest.Main(os.Args, "test"))
	}
	os.Exit(m.Run())
}

func drivers(name string) (vmm.Driver, error) {
	if name == "fake" {
		return vmmtest.Fake{}, nil
	}
	if where, ok := strings.CutPrefix(name, "stuck in "); ok {
		return stuck{where: where}, nil
	}
	return nil, banger.Errorf(banger.NotFound, "there is no driver %q", name).Hint("use fake")
}

// starter starts this binary as shims and, when the test ends, ends those that
// are left.
func starter(t *testing.T) *Starter {
	t.Helper()
	s := &Starter{Exe: "/proc/self/exe", Args: []string{"shim"}}
	t.Cleanup(func() {
		s.mu.Lock()
		for process := range s.children {
			_ = sendSignal(process, syscall.SIGKILL)
		}
		s.mu.Unlock()
		s.reapers.Wait()
	})
	return s
}

func fakeLaunch(t *testing.T, dir paths.VM) Launch {
	t.Helper()
	kernel := filepath.Join(t.TempDir(), "vmlinux")
	if err := os.WriteFile(kernel, []byte("no kernel at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Launch{
		ID: banger.NewID(), Name: "devbox", Driver: "fake",
		Machine: vmm.Config{Dir: string(dir), Binary: "/proc/self/exe", VCPU: 1, MemoryMiB: 128, Kernel: kernel},
	}
}

// startFake starts a shim with a fake VM and ends it with the test.
func startFake(t *testing.T) (*Client, paths.VM) {
	t.Helper()
	dir := paths.VM(t.TempDir())
	c, err := starter(t).Start(t.Context(), dir, fakeLaunch(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, dir
}

func sh(t *testing.T, c *Client, script string) (out string, status uint8, err error) {
	t.Helper()
	s, err := c.Conn().Open(guestwire.KindExec, guestwire.Exec{Argv: []string{"/bin/sh", "-c", script}}.Append(nil))
	if err != nil {
		return "", 0, err
	}
	text, _ := io.ReadAll(s.Reader(guestwire.Stdout))
	body, err := s.Wait(t.Context())
	if err != nil {
		return string(text), 0, guestlink.Error(err)
	}
	exit, err := guestwire.ParseExit(body)
	return string(text), exit.Status, err
}

// processEnd is a process as it is now: wait returns when that one has ended,
// also if its pid is another's by then.
func processEnd(t *testing.T, pid int) (wait func()) {
	t.Helper()
	start, err := startTime(pid)
	if err != nil {
		t.Fatal(err)
	}
	boot, _ := hostBoot()
	f, err := Identity{BootID: boot, PID: pid, Start: start}.open()
	if err != nil || f == nil {
		t.Fatalf("process %d: %v", pid, err)
	}
	return func() {
		t.Helper()
		defer f.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := awaitEnd(ctx, f); err != nil {
			t.Fatalf("process %d: %v", pid, err)
		}
	}
}

func TestCommandRunsThroughAShimProcess(t *testing.T) {
	c, _ := startFake(t)
	out, status, err := sh(t, c, "echo hello; exit 42")
	if out != "hello\n" || status != 42 || err != nil {
		t.Fatalf("%q, status %d, %v", out, status, err)
	}
}

func TestShimIsAProcessOfItsOwn(t *testing.T) {
	leak, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, leak.Fd(), syscall.F_SETFD, 0); errno != 0 {
		t.Fatal(errno)
	}
	t.Setenv("BANGER_SECRET", "hunter2")
	c, _ := startFake(t)
	st, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	proc := "/proc/" + strconv.Itoa(st.Shim.PID)
	env, err := os.ReadFile(proc + "/environ")
	if err != nil || strings.Contains(string(env), "hunter2") {
		t.Errorf("environment %q, %v", env, err)
	}
	stat, _ := os.ReadFile(proc + "/stat")
	if fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:])); fields[3] != strconv.Itoa(st.Shim.PID) {
		t.Errorf("it is in session %s", fields[3])
	}
	fds, _ := os.ReadDir(proc + "/fd")
	for _, fd := range fds {
		if to, _ := os.Readlink(proc + "/fd/" + fd.Name()); to == "/dev/zero" || strings.HasPrefix(to, "pipe:") && fd.Name() == "3" {
			t.Errorf("it has descriptor %s, %s", fd.Name(), to)
		}
	}
}

func TestVMMDiesWithItsShim(t *testing.T) {
	c, dir := startFake(t)
	st, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	gone := processEnd(t, st.VMMPID)
	if err := KillRecorded(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	gone()
	if _, alive, err := Alive(dir); alive || err != nil {
		t.Fatalf("alive %v, %v", alive, err)
	}
	if _, err := Dial(t.Context(), dir); banger.CodeOf(err) != banger.NotRunning {
		t.Fatalf("dial gave %v", err)
	}
	if e, err := ReadExit(dir); e != nil || err != nil {
		t.Fatalf("recorded %+v, %v", e, err)
	}
	if err := KillRecorded(t.Context(), dir); err != nil {
		t.Fatalf("once more: %v", err)
	}
	// What it left is in nobody's way.
	again, err := starter(t).Start(t.Context(), dir, fakeLaunch(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if _, status, err := sh(t, again, "true"); status != 0 || err != nil {
		t.Fatalf("status %d, %v", status, err)
	}
}

func TestVMMKilledFromOutsideIsNoticedAndRecorded(t *testing.T) {
	c, dir := startFake(t)
	st, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	gone := processEnd(t, st.Shim.PID)
	if err := syscall.Kill(st.VMMPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	gone()
	if e, err := ReadExit(dir); err != nil || e == nil || e.Reason != ReasonCrashed || !strings.Contains(e.Message, "SIGKILL") {
		t.Fatalf("recorded %+v, %v", e, err)
	}
}

func TestStoppedShimLeavesNoProcess(t *testing.T) {
	dir := paths.VM(t.TempDir())
	s := starter(t)
	c, err := s.Start(t.Context(), dir, fakeLaunch(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	st, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if e, err := c.Stop(t.Context(), time.Minute); err != nil || e.Reason != ReasonStopped || e.VMM.Reason != vmm.Poweroff {
		t.Fatalf("%+v, %v", e, err)
	}
	// The next one need not wait for the first to be gone.
	again, err := s.Start(t.Context(), dir, fakeLaunch(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if _, err := again.Kill(t.Context(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.reapers.Wait()
	for _, pid := range []int{st.Shim.PID, st.VMMPID} {
		if start, err := startTime(pid); err == nil && start == st.Shim.Start {
			t.Fatalf("process %d is still there", pid)
		}
	}
}

func TestTermStopsTheVMInGoodOrder(t *testing.T) {
	c, dir := startFake(t)
	st, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	gone := processEnd(t, st.Shim.PID)
	if err := syscall.Kill(st.Shim.PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	gone()
	if e, err := ReadExit(dir); err != nil || e == nil || e.Reason != ReasonStopped || e.VMM.Reason != vmm.Poweroff {
		t.Fatalf("recorded %+v, %v", e, err)
	}
}

func TestFailedStartSaysWhyAndLeavesNoProcess(t *testing.T) {
	dir := paths.VM(t.TempDir())
	s := starter(t)
	launch := fakeLaunch(t, dir)
	launch.Driver = "imaginary"
	_, err := s.Start(t.Context(), dir, launch)
	if banger.CodeOf(err) != banger.NotFound || !strings.Contains(err.Error(), `cannot start devbox: there is no driver "imaginary"`) {
		t.Fatalf("got %v", err)
	}
	if hints := banger.HintsOf(err); len(hints) != 1 || hints[0] != "use fake" {
		t.Fatalf("hints %q", hints)
	}
	assertNoProcess(t, dir)
	launch = fakeLaunch(t, dir)
	launch.Machine.Kernel = "nowhere"
	if _, err := s.Start(t.Context(), dir, launch); banger.CodeOf(err) != banger.NotFound {
		t.Fatalf("got %v", err)
	}
	assertNoProcess(t, dir)
	if _, err := (&Starter{Exe: "/nowhere/banger"}).Start(t.Context(), dir, launch); banger.CodeOf(err) != banger.Unavailable {
		t.Fatalf("got %v", err)
	}
}

func TestCancelledStartLeavesNoProcess(t *testing.T) {
	dir := paths.VM(t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := starter(t).Start(ctx, dir, fakeLaunch(t, dir)); banger.CodeOf(err) != banger.Cancelled {
		t.Fatalf("got %v", err)
	}
	assertNoProcess(t, dir)
}

// assertNoProcess looks for the process that recorded itself, if it came so
// far, and for any whose arguments name the directory.
func assertNoProcess(t *testing.T, dir paths.VM) {
	t.Helper()
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		if text, _ := os.ReadFile(f); strings.Contains(string(text), string(dir)) {
			t.Errorf("%s: %q", f, text)
		}
	}
	if _, alive, err := Alive(dir); alive || err != nil {
		t.Errorf("alive %v, %v", alive, err)
	}
}

func TestSecondStartOfARunningVMIsRefused(t *testing.T) {
	c, dir := startFake(t)
	if _, err := starter(t).Start(t.Context(), dir, fakeLaunch(t, dir)); banger.CodeOf(err) != banger.Conflict {
		t.Fatalf("got %v", err)
	}
	if _, status, err := sh(t, c, "true"); status != 0 || err != nil {
		t.Fatalf("status %d, %v", status, err)
	}
}

func TestSocketOfADeepDirectoryIsReached(t *testing.T) {
	dir := paths.VM(filepath.Join(t.TempDir(), strings.Repeat("a", 100), strings.Repeat("ü #?%", 30)))
	if err := os.MkdirAll(string(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	c, err := starter(t).Start(t.Context(), dir, fakeLaunch(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	st, err := os.Stat(dir.ShimSocket())
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", st.Mode(), err)
	}
	if _, err := c.Kill(t.Context(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func TestFollowedConsoleEndsWithTheShim(t *testing.T) {
	for name, end := range map[string]func(*Client, paths.VM) error{
		"stopped": func(c *Client, _ paths.VM) error { _, err := c.Stop(context.Background(), time.Minute); return err },
		"killed":  func(_ *Client, dir paths.VM) error { return KillRecorded(context.Background(), dir) },
	} {
		t.Run(name, func(t *testing.T) {
			c, dir := startFake(t)
			// The fake's guest says nothing by itself.
			if err := os.WriteFile(dir.Console(), []byte("seen\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			r, err := OpenConsole(dir, true)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			all := make(chan string, 1)
			go func() {
				text, _ := io.ReadAll(r)
				all <- string(text)
			}()
			if err := end(c, dir); err != nil {
				t.Fatal(err)
			}
			if text := <-all; !strings.Contains(text, "seen") {
				t.Fatalf("read %q", text)
			}
		})
	}
}

func TestAliveOnlyLooks(t *testing.T) {
	dir := paths.VM(t.TempDir())
	if id, alive, err := Alive(dir); alive || err != nil || id != (Identity{}) {
		t.Fatalf("%+v, %v, %v", id, alive, err)
	}
	me, err := ownIdentity("test")
	if err != nil {
		t.Fatal(err)
	}
	lock, err := takeLock(dir, me)
	if err != nil {
		t.Fatal(err)
	}
	if id, alive, err := Alive(dir); !alive || err != nil || id != me {
		t.Fatalf("%+v, %v, %v", id, alive, err)
	}
	_ = lock.Close()
	if id, alive, err := Alive(dir); alive || err != nil || id != me {
		t.Fatalf("%+v, %v, %v", id, alive, err)
	}
}

func TestRecordedProcessIsOnlyKilledIfItIsTheOne(t *testing.T) {
	dir := paths.VM(t.TempDir())
	me, err := ownIdentity("test")
	if err != nil {
		t.Fatal(err)
	}
	for name, id := range map[string]Identity{
		"an earlier process with this pid": {BootID: me.BootID, PID: me.PID, Start: me.Start - 1},
		"another boot of the host":         {BootID: "x", PID: me.PID, Start: me.Start},
		"nothing recorded":                 {},
	} {
		t.Run(name, func(t *testing.T) {
			text, _ := json.Marshal(id)
			if err := os.WriteFile(dir.ShimLock(), text, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := KillRecorded(t.Context(), dir); err != nil { // or the test is dead
				t.Fatal(err)
			}
		})
	}
}

func TestDialTellsNoVMFromOneThatDoesNotRun(t *testing.T) {
	dir := paths.VM(t.TempDir())
	if _, err := Dial(t.Context(), dir); banger.CodeOf(err) != banger.NotRunning {
		t.Fatalf("got %v", err)
	}
	if _, err := Dial(t.Context(), dir+"/nothing"); banger.CodeOf(err) != banger.NotFound {
		t.Fatalf("got %v", err)
	}
	if _, err := ReadLaunch(dir); banger.CodeOf(err) != banger.NotFound || !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
}
