package e2e

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Commands that are cut off in the middle by a kill of one of the processes
// that take part. When that is, is seen by what lies in the directories.

// tries is how often a command is begun that is over before it is cut off, as it may be
// on a busy host.
const tries = 10

// amid begins a command, waits for a moment of it and cuts it off there, again until
// that was done in time. before makes all as it was.
func (w home) amid(t *testing.T, before func(), moment func() bool, cut func(cmd *exec.Cmd) (inTime bool), args ...string) {
	t.Helper()
	for range tries {
		before()
		eventually(t, "nothing is there yet", func() bool { return !moment() })
		cmd := w.Command(args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		came := w.await(t, moment, cmd)
		if came && cut(cmd) {
			return
		}
		if !came {
			mustEnd(t, cmd)
		}
		t.Logf("%v was not cut off in time", args)
	}
	t.Fatalf("%v was not cut off in time in %d tries", args, tries)
}

// await waits for a moment of a command, and says whether it came before the end.
func (w home) await(t *testing.T, moment func() bool, cmd *exec.Cmd) bool {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(time.Millisecond) {
		ended := !alive(cmd.Process.Pid)
		if moment() || ended {
			return !ended
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			t.Fatalf("the moment in %v did not come", cmd.Args)
		}
	}
}

// mustEnd sees that a command that nobody cut off does well.
func mustEnd(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
}

// strike kills a process if it is still there, and says so.
func strike(pid int) bool {
	return alive(pid) && syscall.Kill(pid, syscall.SIGKILL) == nil
}

// there says whether there is a file.
func there(pattern ...string) bool {
	found, _ := filepath.Glob(filepath.Join(pattern...))
	return len(found) > 0
}

// others are the directories of VMs but this one.
func (w home) others(dir string) []string {
	found, _ := filepath.Glob(filepath.Join(w.State(), "vms", "[0-9a-f]*"))
	return slices.DeleteFunc(found, func(d string) bool { return d == dir })
}

// shimOf is the process of the shim in a directory, 0 if there is none.
func (w home) shimOf(dir string) (pid int) {
	for _, p := range w.processes() {
		if id, command, _ := strings.Cut(p, " "); strings.Contains(command, " shim "+dir) {
			pid, _ = strconv.Atoi(id)
		}
	}
	return pid
}

// cutOff is a VM with a number in its memory, whose commands are cut off.
type cutOff struct {
	home
	dir, secret string
	alone       int // what there is when nothing goes on
}

func newCutOff(t *testing.T, world string) *cutOff {
	t.Helper()
	c := &cutOff{home: readyWorld(t, world)}
	c.start(t, "p")
	c.dir = c.show(t, "p").Dir
	c.begin(t)
	c.alone = len(c.leftovers())
	return c
}

// begin gives the VM a number, and writes something down.
func (c *cutOff) begin(t *testing.T) {
	t.Helper()
	c.secret = c.serve(t, "p")
	c.must(t, "exec", "p", "--", "sh", "-c", "echo kept > /root/file; sync")
}

// Moments.
func (c *cutOff) saving() bool     { return there(c.dir, ".tmp-fork-*") }
func (c *cutOff) made() bool       { return len(c.others(c.dir)) > 0 }
func (c *cutOff) starting() bool   { return c.shimOfCopy() != 0 }
func (c *cutOff) suspending() bool { return there(c.dir, ".tmp-suspended") }
func (c *cutOff) written() bool {
	return there(c.dir, ".tmp-suspended", "state") || there(c.dir, "suspended")
}
func (c *cutOff) resuming() bool { return there(c.dir, ".tmp-resumed") }

// severed is a command that was begun, and who ran before it.
type severed struct {
	cmd          *exec.Cmd
	daemon, shim int // shim is 0 where the VM did not run
}

// victim is who is killed.
type victim func(c *cutOff, of severed) int

func theCommand(_ *cutOff, of severed) int  { return of.cmd.Process.Pid }
func theDaemon(_ *cutOff, of severed) int   { return of.daemon }
func theCopysShim(c *cutOff, _ severed) int { return c.shimOfCopy() }

// theShim is looked for beforehand, where there is one: it takes a while, and the shim
// of a VM that is suspended ends.
func theShim(c *cutOff, of severed) int {
	if alive(of.shim) {
		return of.shim
	}
	return c.shimOf(c.dir)
}

func (c *cutOff) shimOfCopy() int {
	for _, dir := range c.others(c.dir) {
		if there(dir, "shim.lock") {
			return c.shimOf(dir)
		}
	}
	return 0
}

// kill begins a command and kills the victim in the middle of it. When it
// returns nothing of the command goes on.
func (c *cutOff) kill(t *testing.T, before func(), moment func() bool, who victim, args ...string) {
	t.Helper()
	var daemon, shim int
	c.amid(t, func() {
		before()
		daemon, shim = c.daemonPID(t), c.shimOf(c.dir)
	}, moment, func(cmd *exec.Cmd) bool {
		if !alive(daemon) {
			t.Fatal("the daemon ended by itself")
		}
		inTime := strike(who(c, severed{cmd, daemon, shim}))
		if inTime {
			_ = cmd.Wait()
		} else {
			mustEnd(t, cmd)
		}
		c.Banger("vm", "resume", "p") // takes its turn
		return inTime
	}, args...)
}

func TestKilledAmidAFork(t *testing.T) {
	t.Parallel()
	c := newCutOff(t, "amid-fork")
	for _, cut := range []struct {
		name   string
		moment func() bool
		who    victim
		more   []string // of the command
	}{
		{"command while it is saved", c.saving, theCommand, nil},
		{"command while directories are made", c.made, theCommand, nil},
		{"command while copies start", c.starting, theCommand, nil},
		{"command that is to own the copies", c.starting, theCommand, []string{"--rm", "--", "sleep", "600"}},
		{"daemon while it is saved", c.saving, theDaemon, nil},
		{"daemon while directories are made", c.made, theDaemon, nil},
		{"daemon while copies start", c.starting, theDaemon, nil},
		{"shim of a copy", c.starting, theCopysShim, nil},
		{"shim of the VM", c.saving, theShim, nil},
	} {
		t.Run(cut.name, func(t *testing.T) {
			c.kill(t, func() { c.removeCopies(t) }, cut.moment, cut.who, append([]string{"vm", "fork", "-n", "3", "p"}, cut.more...)...)
			if c.show(t, "p").State == "error" { // its shim was killed
				c.must(t, "start", "p")
				c.begin(t)
			}
			if c.answer(t, "p") != c.secret {
				t.Error("the VM is another one")
			}
			c.expectAllOrNone(t, cut.more != nil)
		})
	}
}

// answer is the number in a VM's memory, "" where nobody answers.
func (c *cutOff) answer(t *testing.T, vm string) string {
	t.Helper()
	secret, _, _ := strings.Cut(c.tell(t, vm, ""), " ")
	return secret
}

// expectAllOrNone sees that a fork that was cut off made nothing, or nothing
// that is not whole, and that nothing else is left of it.
func (c *cutOff) expectAllOrNone(t *testing.T, owned bool) {
	t.Helper()
	if owned { // all that were made are about to go, each in its time
		c.expectAlone(t)
		return
	}
	copies := c.copies(t)
	if n := len(copies); n != 0 && n != 3 {
		t.Errorf("%d copies are left", n)
	}
	for _, id := range copies {
		switch state := c.show(t, id).State; {
		case state == "error": // its shim was killed after all were acknowledged
		case state != "running" || c.answer(t, id) != c.secret:
			t.Errorf("%s is no copy: it is %s", id, state)
		}
	}
	if len(copies) > 0 {
		t.Log("all copies were made")
		c.removeCopies(t)
	}
	c.expectAlone(t)
}

// copies are the ids of all other VMs.
func (c *cutOff) copies(t *testing.T) []string {
	t.Helper()
	all := strings.Fields(c.must(t, "ps", "-a", "-q"))
	return slices.DeleteFunc(all, func(id string) bool { return strings.HasPrefix(filepath.Base(c.dir), id) })
}

func (c *cutOff) removeCopies(t *testing.T) {
	t.Helper()
	if copies := c.copies(t); len(copies) > 0 {
		c.must(t, append([]string{"rm", "-f"}, copies...)...)
	}
}

// expectAlone sees that there is nothing but the VM.
func (c *cutOff) expectAlone(t *testing.T) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("left:\n%s", command(t, "ls", "-A", c.dir)+strings.Join(c.leftovers(), "\n"))
		}
	}()
	eventually(t, "what was not finished goes", func() bool {
		return !there(c.dir, ".tmp-*") && !there(c.dir, "snapshots", ".*") && len(c.leftovers()) == c.alone &&
			len(strings.Fields(c.must(t, "ps", "-a", "-q"))) == 1
	})
}

// Whoever is killed, the VM is the one it was; but if its shim was, which is a
// power cut.
func TestKilledAmidASuspension(t *testing.T) {
	t.Parallel()
	c := newCutOff(t, "amid-suspend")
	for _, cut := range []struct {
		name     string
		moment   func() bool
		who      victim
		powerCut bool
	}{
		{"command", c.suspending, theCommand, false},
		{"command at the end", c.written, theCommand, false},
		{"daemon", c.suspending, theDaemon, false},
		{"daemon at the end", c.written, theDaemon, false},
		{"shim", c.suspending, theShim, true},
	} {
		t.Run(cut.name, func(t *testing.T) {
			c.kill(t, func() { c.must(t, "start", "p") }, cut.moment, cut.who, "vm", "suspend", "p")
			eventually(t, "it is over", func() bool { return cut.powerCut || !there(c.dir, ".tmp-suspended") })
			t.Logf("it is %s", c.show(t, "p").State)
			c.expectWhole(t, cut.powerCut)
		})
	}
	for _, cut := range []struct {
		name     string
		who      victim
		powerCut bool
	}{
		{"command amid the resume", theCommand, false},
		{"daemon amid the resume", theDaemon, false},
		{"shim amid the resume", theShim, true},
	} {
		t.Run(cut.name, func(t *testing.T) {
			c.kill(t, func() { c.must(t, "vm", "suspend", "p") }, c.resuming, cut.who, "start", "p")
			t.Logf("it is %s", c.show(t, "p").State)
			c.expectWhole(t, cut.powerCut)
		})
	}
}

// expectWhole sees that the VM is there with its memory, or after a power cut
// with its disk, and begins anew then.
func (c *cutOff) expectWhole(t *testing.T, powerCut bool) {
	t.Helper()
	c.must(t, "start", "p")
	if got := c.must(t, "exec", "p", "--", "cat", "/root/file"); got != "kept" {
		t.Errorf("its file has %q", got)
	}
	if powerCut {
		c.begin(t)
	}
	if c.answer(t, "p") != c.secret {
		t.Error("its memory is another one")
	}
	c.expectAlone(t)
}

// A start from a template that is cut off between its reservation and its guest
// leaves nothing, and the template as it was.
func TestDaemonKilledAmidAStartFromATemplate(t *testing.T) {
	t.Parallel()
	w := readyWorld(t, "amid-start")
	w.must(t, "run", "--rm", "--memory", "512", "--", "true") // the daemon has the template's memory
	template := w.templates()                                 // one
	begun := func() bool { return len(w.others("")) > 0 || there(w.State(), "vms", ".new-*") }
	placed := func() bool { return len(w.others("")) > 0 }
	launched := func() bool { return there(w.State(), "vms", "[0-9a-f]*", "launch.json") }
	supervised := func() bool { return there(w.State(), "vms", "[0-9a-f]*", "shim.sock") }
	for name, moment := range map[string]func() bool{
		"directory is made": begun, "directory is there": placed, "shim is started": launched, "shim listens": supervised,
	} {
		for _, args := range [][]string{
			{"run", "--rm", "--memory", "512", "--", "sleep", "600"},
			{"vm", "create", "--name", "half", "--memory", "512"},
		} {
			t.Run(args[0]+" as the "+name, func(t *testing.T) {
				var daemon int
				w.amid(t, func() {
					w.removeWhole(t, "half")
					daemon = w.daemonPID(t)
				}, moment, func(cmd *exec.Cmd) (inTime bool) {
					kill(t, daemon)
					_ = cmd.Process.Kill()
					_ = cmd.Wait()
					return !w.removeWhole(t, "half")
				}, args...)
				w.expectNothingLeft(t)
			})
		}
	}
	w.start(t, "whole")
	if now, of := w.templates(), w.show(t, "whole").Template; !slices.Equal(now, template) || of != filepath.Base(template[0]) {
		t.Errorf("the template was %q and is %q; the next VM is a fork of %q", template, now, of)
	}
}

// removeWhole removes a VM where it was made all the same. Then all of it was.
func (w home) removeWhole(t *testing.T, name string) (made bool) {
	t.Helper()
	if w.gone(t, name) {
		return false
	}
	w.must(t, "exec", name, "--", "true")
	w.must(t, "rm", "-f", name)
	return true
}

// No more than this can be written to a file: a disk that is full.
func limitFiles(t *testing.T, pid int, size uint64) {
	t.Helper()
	if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: size, Max: unix.RLIM_INFINITY}, nil); err != nil {
		t.Fatal(err)
	}
}

func TestWhatCannotBeSavedRunsOn(t *testing.T) {
	t.Parallel()
	c := newCutOff(t, "cannot-save")
	shim := c.show(t, "p").ShimPID
	for _, args := range [][]string{{"vm", "suspend", "p"}, {"vm", "snapshot", "create", "p"}, {"vm", "fork", "p"}} {
		limitFiles(t, shim, 16<<20)
		r := c.Banger(args...)
		limitFiles(t, shim, unix.RLIM_INFINITY)
		if r.Status != 1 {
			t.Errorf("%v: status %d, %s", args, r.Status, r.Stderr)
		}
		if v := c.show(t, "p"); v.State != "running" || v.ShimPID != shim || c.answer(t, "p") != c.secret {
			t.Errorf("after %v it is %s", args, v.State)
		}
		c.expectAlone(t)
	}
	c.must(t, "vm", "suspend", "p") // now it can
	c.expectWhole(t, false)
}
