package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func (w home) templates() (whole []string) {
	records, _ := filepath.Glob(filepath.Join(w.Home, ".cache/banger/templates/[^.]*/template.json"))
	for _, r := range records {
		whole = append(whole, filepath.Dir(r))
	}
	return whole
}

// warmWorld is an installation of the test's own with the template of a small
// VM in it.
func warmWorld(t *testing.T, name string) home {
	t.Helper()
	w := borrowedWorld(t, name)
	w.must(t, "run", "--rm", "--memory", "512", "--", "true")
	eventually(t, "a template of the first boot", func() bool { return len(w.templates()) == 1 })
	return w
}

// seen is what one VM looks like from inside.
type seen struct {
	machineID, hostname, hosts, random, bootID string
	disk                                       int64
}

func (w home) look(t *testing.T, vm string) (s seen) {
	t.Helper()
	out := w.must(t, "exec", vm, "--", "sh", "-c", "cat /etc/machine-id; hostname; grep -w $(hostname) /etc/hosts;"+
		" head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/boot_id; df -B1 --output=size / | tail -1")
	lines := strings.Split(out, "\n")
	if len(lines) != 6 {
		t.Fatalf("%s shows %q", vm, lines)
	}
	s.machineID, s.hostname, s.hosts, s.random, s.bootID = lines[0], lines[1], lines[2], lines[3], lines[4]
	var err error
	s.disk, err = strconv.ParseInt(strings.TrimSpace(lines[5]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// clockOff is by how much a guest's clock is off at least. It is read between two
// moments of the host; of some readings the one that came soonest says most.
func (w home) clockOff(t *testing.T, vm string) (off time.Duration) {
	t.Helper()
	cmd := w.Command("exec", "-i", vm, "--", "bash", "-c", "while read; do echo ${EPOCHREALTIME/[.,]/}; done")
	in, errIn := cmd.StdinPipe()
	out, errOut := cmd.StdoutPipe()
	if err := errors.Join(errIn, errOut, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close(); _ = cmd.Wait() }()
	lines, soonest := bufio.NewReader(out), time.Duration(math.MaxInt64)
	for range 20 {
		before := time.Now()
		_, errAsked := io.WriteString(in, "\n")
		line, errRead := lines.ReadString('\n')
		after := time.Now()
		micros, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		if err := errors.Join(errAsked, errRead, err); err != nil {
			t.Fatal(err)
		}
		guest := time.UnixMicro(micros)
		if took := after.Sub(before); took < soonest {
			soonest, off = took, max(guest.Sub(after), before.Sub(guest), 0)
		}
	}
	t.Logf("the clock of %s is off by %v or more, and less than %v more", vm, off, soonest)
	return off
}

// expectClock sees that the clock of a VM is the host's. It is late by what the host's time
// took to come to it, which on a busy host may be long (35 ms were seen beside four programs that
// only compute). So another VM that was made in the same way may have it right as well, or the
// same one once it was set again; but none may be off by more than what that explains.
func (w home) expectClock(t *testing.T, vm string, another func(try int) (vm string)) {
	t.Helper()
	const bound, never = 50 * time.Millisecond, 100 * time.Millisecond
	for try := 1; ; try++ {
		off := w.clockOff(t, vm)
		switch {
		case off <= bound:
			return
		case off > never:
			t.Errorf("the clock of %s is off by %v", vm, off)
			return
		case try == 3:
			t.Errorf("no clock of %d is right to %v", try, bound)
			return
		}
		vm = another(try)
	}
}

// One line of the resume contract each, on two forks of one template.
func TestForksOfATemplateAreMachinesOfTheirOwn(t *testing.T) {
	t.Parallel()
	w := borrowedWorld(t, "contract")
	own := w.plant(t)
	w.must(t, "run", "--rm", "--memory", "512", "--name", own["a VM's name"], "-e", "CANARY="+own["a variable"], "--",
		"sh", "-c", "cat /root/.toolrc; echo "+own["a command"])
	eventually(t, "a template of the first boot", func() bool { return len(w.templates()) == 1 })
	own.mustBeAbsent(t, w.templates()[0], "cryptomgr.notests") // which every kernel's command line has
	w.start(t, "one", "--disk-size", "12G")
	w.start(t, "two", "--disk-size", "8G") // the template's own
	template := w.show(t, "one").Template
	if template == "" || template != w.show(t, "two").Template {
		t.Fatalf("forked from %q and %q", template, w.show(t, "two").Template)
	}
	one, two := w.look(t, "one"), w.look(t, "two")
	for _, c := range []struct {
		what     string
		one, two string
		wantOne  string // where it is known
	}{
		{"machine-id", one.machineID, two.machineID, w.show(t, "one").ID},
		{"host name", one.hostname, two.hostname, "one"},
		{"/etc/hosts", one.hosts, two.hosts, ""},
		{"random numbers", one.random, two.random, ""},
		{"boot id", one.bootID, two.bootID, w.show(t, "one").BootID},
	} {
		if c.one == c.two || c.wantOne != "" && c.one != c.wantOne {
			t.Errorf("%s: %q and %q, want %q and another", c.what, c.one, c.two, c.wantOne)
		}
	}
	if !strings.Contains(one.hosts, w.show(t, "one").GuestIP) {
		t.Errorf("/etc/hosts says %q", one.hosts)
	}
	// A boot id that the agent had to hide would be the template's, which has then
	// read its own.
	if mounts := w.must(t, "exec", "one", "--", "cat", "/proc/self/mountinfo"); strings.Contains(mounts, "boot_id") {
		t.Errorf("over the boot id something is mounted:\n%s", mounts)
	}
	const gib = int64(1) << 30
	if one.disk < 12*gib*9/10 || two.disk < 8*gib*9/10 || two.disk > 8*gib {
		t.Errorf("disks of 12 and 8 GiB have %d and %d bytes", one.disk, two.disk)
	}
	for _, name := range []string{"one", "two"} {
		w.expectClock(t, name, func(try int) string {
			another := fmt.Sprintf("%s-%d", name, try)
			w.start(t, another)
			return another
		})
	}
}

func TestRebootInsideAForkBootsFromItsDisk(t *testing.T) {
	t.Parallel()
	w := warmWorld(t, "reboot")
	w.start(t, "again")
	before := w.look(t, "again")
	w.must(t, "exec", "again", "--", "sh", "-c", "echo kept > /root/file; sync")
	w.Banger("exec", "again", "--", "reboot") // which ends with it
	eventually(t, "it is up again", func() bool {
		return w.show(t, "again").BootID != before.bootID && w.Banger("exec", "again", "--", "true").Status == 0
	})
	if got := w.must(t, "exec", "again", "--", "cat", "/root/file"); got != "kept" {
		t.Errorf("the file has %q", got)
	}
	if after := w.look(t, "again"); after.machineID != before.machineID || w.show(t, "again").Template != "" {
		t.Errorf("machine-id %s, then %s; template %q", before.machineID, after.machineID, w.show(t, "again").Template)
	}
}

func TestColdUsesNoTemplateAndFirstStartsDo(t *testing.T) {
	t.Parallel()
	w := warmWorld(t, "cold")
	w.start(t, "cold", "--cold")
	if got := w.show(t, "cold").Template; got != "" {
		t.Errorf("--cold forked %s", got)
	}
	w.must(t, "vm", "create", "--name", "later", "--memory", "512", "--no-start")
	w.must(t, "start", "later")
	if w.show(t, "later").Template == "" {
		t.Error("the first start of a VM forked nothing")
	}
	w.must(t, "exec", "later", "--", "sh", "-c", "echo kept > /root/file")
	w.must(t, "stop", "later")
	w.must(t, "start", "later")
	if got := w.must(t, "exec", "later", "--", "cat", "/root/file"); got != "kept" || w.show(t, "later").Template != "" {
		t.Errorf("the second start: file %q, template %q", got, w.show(t, "later").Template)
	}
}

// write damages a file at a place.
func write(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("damage"), at); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedTemplateIsNoticedAndMadeAgain(t *testing.T) {
	t.Parallel()
	w := warmWorld(t, "damaged")
	cut := func(file string, size int64) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, file), size); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, damage := range []struct {
		name   string
		daemon bool // a new one, which has no memory in RAM
		do     func(t *testing.T, dir string)
	}{
		{"memory changed in use", false, func(t *testing.T, dir string) { write(t, filepath.Join(dir, "memory"), 1<<20) }},
		{"truncated memory", true, cut("memory", 64<<20)},
		{"changed state", true, func(t *testing.T, dir string) { write(t, filepath.Join(dir, "state"), 200) }},
		{"changed disk", true, func(t *testing.T, dir string) { write(t, filepath.Join(dir, "disk.ext4"), 1024+56) }}, // its magic number
		{"truncated record", true, cut("template.json", 100)},
	} {
		t.Run(damage.name, func(t *testing.T) {
			id := filepath.Base(w.templates()[0])
			damage.do(t, w.templates()[0])
			if damage.daemon {
				w.must(t, "daemon", "stop", "--force")
			}
			w.start(t, "box")
			if got := w.show(t, "box").Template; got != "" {
				t.Errorf("it forked the damaged template %s", got)
			}
			if got := w.must(t, "exec", "box", "--", "echo", "up"); got != "up" {
				t.Errorf("it says %q", got)
			}
			w.must(t, "rm", "-f", "box")
			eventually(t, "it is made again", func() bool { return len(w.templates()) == 1 })
			w.start(t, "again")
			defer w.Banger("rm", "-f", "again")
			if got := w.show(t, "again").Template; got != id {
				t.Errorf("the next forked %q, not %s", got, id)
			}
		})
	}
}

// maker is the process that makes a template, 0 if there is none.
func (w home) maker() (pid int) {
	for _, p := range w.processes() {
		if id, command, _ := strings.Cut(p, " "); strings.Contains(command, "template make") {
			pid, _ = strconv.Atoi(id)
		}
	}
	return pid
}

func TestKilledMakerLeavesNothingThatIsUsed(t *testing.T) {
	t.Parallel()
	w := borrowedWorld(t, "maker")
	w.must(t, "run", "--rm", "--memory", "512", "--", "true")
	eventually(t, "the maker begins", func() bool { return w.maker() != 0 })
	half := func() bool {
		dirs, _ := filepath.Glob(filepath.Join(w.Home, ".cache/banger/templates/.new-*/disk.ext4"))
		return len(dirs) > 0
	}
	eventually(t, "it is in the middle", half)
	kill(t, w.maker())
	eventually(t, "its machine is gone with it", func() bool {
		for _, p := range w.processes() {
			if strings.Contains(p, "qemu") {
				return false
			}
		}
		return true
	})
	if len(w.templates()) != 0 {
		t.Fatal("there is a template")
	}
	w.must(t, "run", "--rm", "--memory", "512", "--", "true")
	eventually(t, "another maker makes it", func() bool { return len(w.templates()) == 1 })
	if half() {
		t.Error("what the killed one left is still there")
	}
}

func TestPruneFreesTemplatesWithoutForks(t *testing.T) {
	t.Parallel()
	w := warmWorld(t, "prune")
	w.start(t, "fork")
	if out := w.must(t, "image", "cache", "prune", "--json"); !strings.Contains(out, `"freed_bytes": 0`) {
		t.Errorf("with a fork of it running: %s", out)
	}
	w.must(t, "rm", "-f", "fork")
	if out := w.must(t, "image", "cache", "prune", "--dry-run", "--json"); strings.Contains(out, `"freed_bytes": 0`) || len(w.templates()) != 1 {
		t.Errorf("a dry run: %s, %q left", out, w.templates())
	}
	w.must(t, "image", "cache", "prune")
	if left, _ := filepath.Glob(filepath.Join(w.Home, ".cache/banger/templates/[^.]*")); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}
