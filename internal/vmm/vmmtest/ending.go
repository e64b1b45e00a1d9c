package vmmtest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/vmm"
)

func (h Harness) testPoweroff(t *testing.T) { h.testGuestEnds(t, "poweroff", vmm.Poweroff) }
func (h Harness) testReset(t *testing.T)    { h.testGuestEnds(t, "reset", vmm.Reset) }

func (h Harness) testGuestEnds(t *testing.T, request string, want vmm.Reason) {
	g := h.boot(t)
	g.send(t, "%s", request)
	if exit := g.ends(t, answerLimit); exit != (vmm.Exit{Reason: want}) {
		t.Errorf("exit = %+v, want %s", exit, want)
	}
}

func (h Harness) testTerminate(t *testing.T) {
	g := h.launch(t)
	if err := g.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if exit := g.ends(t, answerLimit); exit != (vmm.Exit{Reason: vmm.Killed, Signal: "SIGTERM"}) {
		t.Errorf("exit = %+v", exit)
	}
}

func (h Harness) testSeveral(t *testing.T) {
	guests := []*guest{h.launch(t), h.launch(t)}
	for n, g := range guests {
		g.SetDeadline(t, 2*bootLimit)
		if line := g.read(t); line != "hello" {
			t.Fatalf("guest %d said %q", n, line)
		}
	}
	guests[0].Signal(os.Kill)
	guests[0].ends(t, answerLimit)
	if got := guests[1].ask(t, "echo alive"); got != "alive" {
		t.Errorf("the other one answers %q", got)
	}
}

// orphanVariable makes Run, in a second process of this test, boot the
// configuration it holds, say its pid and stand still until it is killed.
const orphanVariable = "BANGER_VMMTEST_ORPHAN"

// orphanSaveVariable makes it stand still in the middle of a Save to the
// directory it names.
const orphanSaveVariable = "BANGER_VMMTEST_ORPHAN_SAVE"

const orphanWord = "vmmtest: pid of the VMM is "

func bootOrphan(t *testing.T, h Harness) {
	var cfg vmm.Config
	if err := json.Unmarshal([]byte(os.Getenv(orphanVariable)), &cfg); err != nil {
		t.Fatal(err)
	}
	m, err := h.Driver.Boot(t.Context(), cfg, vmm.IO{})
	if err != nil {
		t.Fatal(err)
	}
	stand := func() error {
		fmt.Printf("\n%s%d\n", orphanWord, m.PID())
		<-m.Done()
		return nil
	}
	if dir := os.Getenv(orphanSaveVariable); dir != "" {
		t.Fatal(m.Save(t.Context(), savedIn(dir), stand))
	}
	stand()
	t.Fatalf("the machine ended before its parent: %+v", m.Exit())
}

// testOrphan kills the process that booted a machine in the way nothing can be
// cleaned up after.
func (h Harness) testOrphan(t *testing.T) { h.killParent(t) }

func (h Harness) testOrphanInSave(t *testing.T) {
	h.killParent(t, orphanSaveVariable+"="+t.TempDir())
}

func (h Harness) killParent(t *testing.T, env ...string) {
	cfg, err := json.Marshal(h.prepare(t))
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(os.Args[0], "-test.run=^"+strings.Split(t.Name(), "/")[0]+"$")
	parent.Env = slices.Concat(os.Environ(), []string{orphanVariable + "=" + string(cfg)}, env)
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	defer parent.Wait()
	defer parent.Process.Kill()
	vmmEnded := awaitOrphan(t, out)
	defer unix.Close(vmmEnded)
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	poll := []unix.PollFd{{Fd: int32(vmmEnded), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, int(answerLimit.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if n != 1 {
			unix.PidfdSendSignal(vmmEnded, unix.SIGKILL, nil, 0)
			t.Fatalf("the VMM outlived its parent (%v)", err)
		}
		return
	}
}

// awaitOrphan reads the pid of the VMM and gives a pidfd of it.
func awaitOrphan(t *testing.T, out interface{ Read([]byte) (int, error) }) int {
	t.Helper()
	var said []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		said = append(said, lines.Text())
		text, found := strings.CutPrefix(lines.Text(), orphanWord)
		if !found {
			continue
		}
		var pid int
		if _, err := fmt.Sscan(text, &pid); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatalf("pidfd of %d: %v", pid, err)
		}
		return fd
	}
	t.Fatalf("the second process booted nothing:\n%s", strings.Join(said, "\n"))
	return -1
}

// testInheritance plants a descriptor that lacks close-on-exec, as a process
// may have been born with.
func (h Harness) testInheritance(t *testing.T) {
	planted := filepath.Join(t.TempDir(), "planted")
	fd, err := unix.Open(planted, unix.O_CREAT|unix.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	g := h.launch(t)
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", g.PID()))
	if err != nil || len(links) == 0 {
		t.Fatalf("cannot see the VMM's descriptors: %v", err)
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if target == planted {
			t.Errorf("%s is %s", link, target)
		}
	}
	g.Signal(os.Kill)
	g.ends(t, patience*time.Minute)
}
