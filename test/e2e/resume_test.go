package e2e

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The resume contract, seen from inside: of machines that were copied while
// they ran, and of one that was suspended. Of forks of a template it is tried
// in warm_test.go.

// attached is a command whose host stays with the VM it was begun in. It counts,
// says more than anybody could keep, and then waits for a line of input.
type attached struct {
	cmd *exec.Cmd
	in  io.WriteCloser
}

const counting = `trap 'echo hung up > /root/end; exit' HUP TERM; echo $$ > /root/pid
i=0; while [ ! -e /root/go ]; do i=$((i+1)); echo $i > /root/.count; mv /root/.count /root/count; sleep 0.05; done
head -c 2000000 /dev/zero | tr '\0' x; echo waits > /root/end; read line; echo "read $line" > /root/end`

func (w home) attach(t *testing.T, vm string) attached {
	t.Helper()
	a := attached{cmd: w.Command("exec", "-i", vm, "--", "sh", "-c", counting)}
	var err error
	if a.in, err = a.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = a.in.Close()
		_ = a.cmd.Process.Kill()
		_ = a.cmd.Wait()
	})
	eventually(t, "the command counts", func() bool { return w.Banger("exec", vm, "--", "cat", "/root/count").Status == 0 })
	return a
}

// counts says whether the command that was begun in the VM, or in the one it
// is a copy of, goes on.
func (w home) counts(t *testing.T, vm string) bool {
	t.Helper()
	return w.Banger("exec", vm, "--", "sh", "-c", `kill -0 $(cat /root/pid) || exit; was=$(cat /root/count)
		for i in $(seq 1200); do [ "$(cat /root/count)" = "$was" ] || exit 0; sleep 0.05; done; exit 1`).Status == 0
}

func (w home) fork(t *testing.T, vm string, n string) {
	t.Helper()
	for fork := range strings.FieldsSeq(w.must(t, "fork", vm, "-n", n)) {
		t.Cleanup(func() { w.Banger("rm", "-f", fork) })
	}
}

func TestLiveForksAreMachinesOfTheirOwn(t *testing.T) {
	w := shared
	w.start(t, "live")
	a := w.attach(t, "live")
	w.fork(t, "live", "2")
	parent, one, two := w.look(t, "live"), w.look(t, "live-1"), w.look(t, "live-2")
	for _, c := range []struct {
		what     string
		all      [3]string
		knownOne string
	}{
		{"machine-id", [3]string{one.machineID, two.machineID, parent.machineID}, w.show(t, "live-1").ID},
		{"host name", [3]string{one.hostname, two.hostname, parent.hostname}, "live-1"},
		{"/etc/hosts", [3]string{one.hosts, two.hosts, parent.hosts}, ""},
		{"random numbers", [3]string{one.random, two.random, parent.random}, ""},
		{"boot id", [3]string{one.bootID, two.bootID, parent.bootID}, w.show(t, "live-1").BootID},
	} {
		if c.all[0] == c.all[1] || c.all[1] == c.all[2] || c.all[0] == c.all[2] || c.knownOne != "" && c.all[0] != c.knownOne {
			t.Errorf("%s: %q, the first to be %q and all to differ", c.what, c.all, c.knownOne)
		}
	}
	if !strings.Contains(one.hosts, w.show(t, "live-1").GuestIP) {
		t.Errorf("/etc/hosts says %q", one.hosts)
	}
	for _, name := range []string{"live-1", "live-2"} {
		w.expectClock(t, name, func(try int) string {
			another := fmt.Sprintf("%s-again-%d", name, try)
			w.must(t, "vm", "fork", "live", "--name", another)
			t.Cleanup(func() { w.Banger("rm", "-f", another+"-1") })
			return another + "-1"
		})
	}
	w.testStreamsOfTheHostBefore(t, a, []string{"live-1", "live-2"})
	again := w.must(t, "exec", "live-1", "--", "cat", "/proc/sys/kernel/random/boot_id")
	if again != one.bootID || w.must(t, "exec", "live", "--", "cat", "/proc/sys/kernel/random/boot_id") != parent.bootID {
		t.Errorf("the boot id was %s and is %s", one.bootID, again)
	}
}

// testStreamsOfTheHostBefore sees that the command of a stream goes on with
// its host, and in the forks without one.
func (w home) testStreamsOfTheHostBefore(t *testing.T, a attached, forks []string) {
	t.Helper()
	for _, vm := range append(forks, "live") {
		if !w.counts(t, vm) {
			t.Errorf("the command does not go on in %s", vm)
		}
	}
	for _, vm := range append(forks, "live") {
		w.must(t, "exec", vm, "--", "touch", "/root/go")
		eventually(t, "it is rid of its output in "+vm, func() bool {
			return w.Banger("exec", vm, "--", "cat", "/root/end").Stdout == "waits\n"
		})
	}
	if _, err := io.WriteString(a.in, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if err := a.cmd.Wait(); err != nil {
		t.Errorf("the command's own host: %v", err)
	}
	if got := w.must(t, "exec", "live", "--", "cat", "/root/end"); got != "read hello" {
		t.Errorf("with its host it %s", got)
	}
	for _, vm := range forks {
		if got := w.must(t, "exec", vm, "--", "cat", "/root/end"); got != "waits" {
			t.Errorf("in %s it %s", vm, got)
		}
	}
}

func TestForkOfAForkHasABootIDOfItsOwn(t *testing.T) {
	w := shared
	w.start(t, "old")
	w.fork(t, "old", "1")
	w.fork(t, "old-1", "1")
	ids := map[string]bool{}
	for _, vm := range []string{"old", "old-1", "old-1-1"} {
		ids[w.must(t, "exec", vm, "--", "cat", "/proc/sys/kernel/random/boot_id")] = true
	}
	if len(ids) != 3 {
		t.Errorf("three machines have the boot ids %v", ids)
	}
}

func TestSuspendedVMGoesOnWhereItWas(t *testing.T) {
	w := shared
	w.start(t, "nap")
	w.must(t, "exec", "-d", "nap", "--", "sh", "-c", counting)
	eventually(t, "the command counts", func() bool { return w.Banger("exec", "nap", "--", "cat", "/root/count").Status == 0 })
	before, vmm := w.look(t, "nap"), w.show(t, "nap").VMMPID
	w.must(t, "vm", "suspend", "nap")
	if s := w.show(t, "nap"); s.State != "suspended" || alive(vmm) {
		t.Fatalf("%+v; its VMM lives: %v", s, alive(vmm))
	}
	w.must(t, "start", "nap")
	after := w.look(t, "nap")
	if after.bootID != before.bootID || after.machineID != before.machineID || after.hostname != before.hostname {
		t.Errorf("%+v, then %+v", before, after)
	}
	w.expectClock(t, "nap", func(int) string {
		w.must(t, "vm", "suspend", "nap")
		w.must(t, "start", "nap")
		return "nap"
	})
	if !w.counts(t, "nap") {
		t.Error("the command does not go on")
	}
	if _, err := os.Stat(filepath.Join(w.show(t, "nap").Dir, "suspended")); err == nil {
		t.Error("what it was suspended with is still there")
	}
}

func TestDamagedSuspendedVMBootsFromItsDisk(t *testing.T) {
	w := shared
	w.start(t, "hurt")
	w.must(t, "exec", "hurt", "--", "sh", "-c", "echo kept > /root/file; sync")
	before := w.show(t, "hurt").BootID
	w.must(t, "vm", "suspend", "hurt")
	f, err := os.OpenFile(filepath.Join(w.show(t, "hurt").Dir, "suspended", "memory"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("damage"), 64<<20); err != nil {
		t.Fatal(err)
	}
	r := w.Banger("start", "hurt")
	if r.Status != 0 || !strings.Contains(r.Stderr, "memory is damaged") {
		t.Errorf("status %d\n%s", r.Status, r.Stderr)
	}
	if got := w.must(t, "exec", "hurt", "--", "cat", "/root/file"); got != "kept" || w.show(t, "hurt").BootID == before {
		t.Errorf("the file has %q, the boot id %s is still there: %v", got, before, w.show(t, "hurt").BootID == before)
	}
}
