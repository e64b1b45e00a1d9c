package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// shaping is held by whoever asks the shared world for its template.
var shaping sync.Mutex

// readyWorld is borrowedWorld with the shared template of a small VM too, so that
// no VM boots. It is hard links: a test that damages it wants another world.
func readyWorld(t *testing.T, name string) home {
	t.Helper()
	var small string
	eventually(t, "the shared world has a template", func() bool {
		shaping.Lock()
		defer shaping.Unlock()
		shared.must(t, "vm", "create", "--name", "shape", "--memory", "512")
		defer shared.Banger("rm", "-f", "shape")
		small = shared.show(t, "shape").Template
		return small != ""
	})
	w := newWorld(t, name)
	for _, part := range []string{
		".local/state/banger/images", ".local/state/banger/kernels",
		filepath.Join(".cache/banger/templates", small), ".cache/banger/accel.json",
	} {
		to := filepath.Join(w.Home, filepath.Dir(part))
		if err := os.MkdirAll(to, 0o700); err != nil {
			t.Fatal(err)
		}
		command(t, "cp", "-al", filepath.Join(shared.Home, part), to)
	}
	if err := w.Furnish(); err != nil {
		t.Fatal(err)
	}
	return w
}

// server answers whoever connects with a number that it has in its memory
// alone, and with the last word it was told.
const server = `cat > /root/server.py <<'END'
import os, socket
secret, word = os.urandom(16).hex(), "nothing"
s = socket.create_server(("127.0.0.1", 7000))
while True:
    c = s.accept()[0]
    word = c.makefile().readline().strip() or word
    c.sendall((secret + " " + word + "\n").encode())
    c.close()
END
setsid python3 /root/server.py </dev/null >/dev/null 2>&1 &
for i in $(seq 1200); do (: </dev/tcp/127.0.0.1/7000) 2>/dev/null && exit; sleep 0.1; done; exit 1`

// serve begins the server in a VM and gives the number.
func (w home) serve(t *testing.T, vm string) (secret string) {
	t.Helper()
	w.must(t, "exec", vm, "--", "bash", "-c", server)
	secret, _, _ = strings.Cut(w.tell(t, vm, ""), " ")
	return secret
}

// tell tells the server a word, or none, and gives its answer.
func (w home) tell(t *testing.T, vm, word string) string {
	t.Helper()
	return w.must(t, "exec", vm, "--", "timeout", "120", "bash", "-c",
		fmt.Sprintf("exec 3<>/dev/tcp/127.0.0.1/7000; echo %s >&3; cat <&3", word))
}

// everywhere does the same in several VMs at once.
func everywhere(vms []string, do func(vm string)) {
	var all sync.WaitGroup
	for _, vm := range vms {
		all.Go(func() { do(vm) })
	}
	all.Wait()
}

// Copies of a VM with a server in its memory and more on its disk than is
// copied, with the VM and without it.
func TestCopiesOfARunningServer(t *testing.T) {
	t.Parallel()
	w := readyWorld(t, "copies")
	w.start(t, "p")
	if w.show(t, "p").Template == "" {
		t.Error("it was not made from a template")
	}
	secret := w.serve(t, "p")
	w.tell(t, "p", "before")
	w.must(t, "exec", "p", "--", "sh", "-c", "head -c 300M /dev/urandom > /root/large; sync")
	c := copies{home: w, secret: secret, all: []string{"p", "p-1", "p-2", "p-3"}}
	c.whole, c.end = w.sums(t, "p")
	w.fork(t, "p", "3")
	t.Run("have its memory", c.haveItsMemory)
	t.Run("have its disk", c.haveItsDisk)
	t.Run("go their own ways", c.goTheirOwnWays)
	t.Run("are machines of their own", c.areMachinesOfTheirOwn)
	t.Run("come back to a snapshot", c.comeBack)
	c.loseTheParent(t)
	t.Run("need no file of others", c.needNoFileOfOthers)
	t.Run("live on without the parent", c.liveOn)
}

// copies is a VM and copies of it.
type copies struct {
	home
	secret     string
	whole, end string // sums of the large file
	all        []string
}

// sums are those of the large file and of its end, which nobody overwrites.
func (w home) sums(t *testing.T, vm string) (whole, end string) {
	t.Helper()
	whole, end, _ = strings.Cut(w.must(t, "exec", vm, "--", "sh", "-c", "cksum < /root/large; "+sumOfEnd), "\n")
	return whole, end
}

const sumOfEnd = "tail -c 32M /root/large | cksum"

func (c *copies) wants(t *testing.T, vm, word string) {
	t.Helper()
	if got := c.tell(t, vm, ""); got != c.secret+" "+word {
		t.Errorf("%s answers %q, not %q", vm, got, c.secret+" "+word)
	}
}

func (c *copies) haveItsMemory(t *testing.T) {
	everywhere(c.all, func(vm string) { c.wants(t, vm, "before") })
}

func (c *copies) haveItsDisk(t *testing.T) {
	for _, vm := range c.all {
		if layers, _ := filepath.Glob(filepath.Join(c.show(t, vm).Dir, "disk.*.qcow2")); len(layers) == 0 {
			t.Errorf("%s has no layer: its disk was copied", vm)
		}
	}
	everywhere(c.all, func(vm string) {
		if whole, end := c.sums(t, vm); whole != c.whole || end != c.end {
			t.Errorf("%s reads %s and %s, not %s and %s", vm, whole, end, c.whole, c.end)
		}
	})
}

const (
	overwrite = "yes %s | head -c 2M | dd of=/root/large conv=notrunc status=none; echo %s > /root/own; sync"
	readBack  = "echo 3 > /proc/sys/vm/drop_caches; head -n 1 /root/large; cat /root/own"
)

func (c *copies) goTheirOwnWays(t *testing.T) {
	everywhere(c.all, func(vm string) {
		c.tell(t, vm, "in-"+vm)
		c.must(t, "exec", vm, "--", "sh", "-c", fmt.Sprintf(overwrite, vm, vm))
	})
	everywhere(c.all, func(vm string) {
		c.wants(t, vm, "in-"+vm)
		if got := c.must(t, "exec", vm, "--", "sh", "-c", readBack); got != vm+"\n"+vm {
			t.Errorf("%s reads %q", vm, got)
		}
	})
}

// forked is what `fork --json` prints.
type forked struct {
	VMs     []shownTrace
	Results []struct {
		Name, Stdout string
		Status       *int
		Trace        []phase
	}
}

type shownTrace struct{ Trace []phase }

type phase struct {
	Name   string
	Millis float64 `json:"ms"`
}

func names(phases []phase) (all []string) {
	for _, p := range phases {
		all = append(all, p.Name)
	}
	return all
}

func (c *copies) areMachinesOfTheirOwn(t *testing.T) {
	const identity = "cat /etc/machine-id; hostname; cat /proc/sys/kernel/random/boot_id; head -c 1M /dev/urandom | sha256sum"
	cmd := c.Command("vm", "fork", "-n", "10", "--name", "ten", "--rm", "--json", "--trace", "p-1", "--", "sh", "-c", identity)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var f forked
	if err := json.Unmarshal(out, &f); err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, r := range f.Results {
		lines := strings.Split(strings.TrimSpace(r.Stdout), "\n")
		if r.Status == nil || *r.Status != 0 || len(lines) != 4 || lines[1] != r.Name {
			t.Fatalf("%s printed %q", r.Name, r.Stdout)
		}
		for i, line := range lines {
			if other := seen[line]; other != "" {
				t.Errorf("%s and %s: line %d of both is %s", r.Name, other, i, line)
			}
			seen[line] = r.Name
		}
		for _, name := range []string{"reserve", "save", "disk", "shim", "VMM", "load", "link", "contract", "exec"} {
			if !slices.Contains(names(r.Trace), name) {
				t.Errorf("the trace of %s has no phase %s: %+v", r.Name, name, r.Trace)
			}
		}
	}
	if len(f.Results) != 10 || len(seen) != 40 {
		t.Errorf("%d copies printed %d lines", len(f.Results), len(seen))
	}
}

// comeBack takes one copy back to what it was before the others' ways parted
// from its own.
func (c *copies) comeBack(t *testing.T) {
	c.must(t, "vm", "snapshot", "create", "p-1", "then")
	c.tell(t, "p-1", "later")
	c.must(t, "exec", "p-1", "--", "sh", "-c", fmt.Sprintf(overwrite, "later", "later"))
	c.must(t, "vm", "snapshot", "restore", "-f", "p-1", "then")
	c.wants(t, "p-1", "in-p-1")
	if got := c.must(t, "exec", "p-1", "--", "sh", "-c", readBack+"; "+sumOfEnd); got != "p-1\np-1\n"+c.end {
		t.Errorf("it reads %q", got)
	}
}

// loseTheParent removes all that the copies do not own.
func (c *copies) loseTheParent(t *testing.T) {
	t.Helper()
	dir := c.show(t, "p").Dir
	c.must(t, "rm", "-f", "p")
	c.must(t, "daemon", "stop", "--force") // which has templates open
	if err := os.RemoveAll(filepath.Join(c.Home, ".cache")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the parent's directory is still there")
	}
	c.all = c.all[1:]
}

func (c *copies) needNoFileOfOthers(t *testing.T) {
	for _, vm := range c.all {
		v := c.show(t, vm)
		links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", v.ShimPID))
		more, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", v.VMMPID))
		if len(links) < 5 || len(more) < 5 {
			t.Fatalf("%s: %d and %d descriptors", vm, len(links), len(more))
		}
		for _, l := range append(links, more...) {
			to, err := os.Readlink(l)
			if err == nil && strings.HasPrefix(to, c.Home) && !strings.HasPrefix(to, v.Dir) && !strings.HasPrefix(to, c.State()+"/images/") && !strings.HasPrefix(to, c.State()+"/kernels/") {
				t.Errorf("%s has %s open", vm, to)
			}
		}
		c.filesStandAlone(t, v.Dir)
	}
}

// filesStandAlone sees that no file in dir says that another is needed.
func (c *copies) filesStandAlone(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.Type()&os.ModeSymlink != 0 {
			t.Errorf("%s is a link", path)
		}
		if strings.HasSuffix(e.Name(), ".qcow2") {
			header := make([]byte, 16)
			f, err := os.Open(path)
			if err == nil {
				_, err = f.ReadAt(header, 0)
				_ = f.Close()
			}
			if err != nil || string(header[:4]) != "QFI\xfb" || string(header[8:]) != strings.Repeat("\x00", 8) {
				t.Errorf("%s names a file below it: %q %v", path, header, err)
			}
		}
	}
}

func (c *copies) liveOn(t *testing.T) {
	everywhere(c.all, func(vm string) { c.wants(t, vm, "in-"+vm) })
	everywhere(c.all, func(vm string) {
		switch vm {
		case "p-1": // by the memory it has on disk, and as a parent
			c.must(t, "vm", "suspend", vm)
			c.must(t, "vm", "fork", vm, "--name", "of-suspended")
			c.must(t, "start", vm)
			c.wants(t, vm, "in-"+vm)
			c.wants(t, "of-suspended-1", "in-"+vm)
		case "p-2": // by its disk alone
			c.must(t, "stop", vm)
			c.must(t, "start", vm)
			if got := c.must(t, "exec", vm, "--", "sh", "-c", readBack); got != vm+"\n"+vm {
				t.Errorf("after a boot %s reads %q", vm, got)
			}
		case "p-3":
			c.must(t, "vm", "snapshot", "create", vm, "then")
			c.must(t, "vm", "fork", vm)
			c.tell(t, vm, "later")
			c.must(t, "vm", "snapshot", "restore", "-f", vm, "then")
			c.wants(t, vm, "in-"+vm)
			c.wants(t, vm+"-1", "in-"+vm)
		}
	})
	for _, vm := range []string{"p-1", "of-suspended-1", "p-3-1"} {
		c.must(t, "rm", "-f", vm)
	}
	everywhere([]string{"p-2", "p-3"}, func(vm string) {
		if got := c.must(t, "exec", vm, "--", "sh", "-c", sumOfEnd); got != c.end {
			t.Errorf("in the end %s reads %q, not %q", vm, got, c.end)
		}
	})
	c.must(t, "rm", "-f", "p-2", "p-3")
	c.expectNothingLeft(t)
}
