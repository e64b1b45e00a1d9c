package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// remember begins a process in a VM that has a secret in its memory alone, and
// says it to whoever asks; and fills a file that is too large for a disk to be
// copied for each fork.
func (w home) remember(t *testing.T, vm string) (secret string) {
	t.Helper()
	w.must(t, "exec", vm, "--", "sh", "-c", `mkfifo /run/ask
		(s=$(head -c 8 /dev/urandom | od -An -tx1 | tr -d ' \n'); while :; do read to < /run/ask; echo $s > $to; done) > /dev/null 2>&1 &
		head -c 80M /dev/urandom > /root/large; sync`)
	return w.ask(t, vm)
}

// ask hears the secret from the process that has it.
func (w home) ask(t *testing.T, vm string) string {
	t.Helper()
	return w.must(t, "exec", vm, "--", "timeout", "20", "sh", "-c",
		"rm -f /run/answer; mkfifo /run/answer; echo /run/answer > /run/ask; cat /run/answer")
}

// large is the sum of a part of the file, which takes an emulated guest a while.
func (w home) large(t *testing.T, vm string) string {
	t.Helper()
	return w.must(t, "exec", vm, "--", "sh", "-c", "tail -c 4M /root/large | cksum")
}

// Whatever is done to a machine that was copied while it ran, and however
// often, its processes and its files are there, also without its parents.
func TestFiveGenerationsNeedNothingOfTheirParents(t *testing.T) {
	t.Parallel()
	w := borrowedWorld(t, "generations")
	w.start(t, "g0")
	secret, large := w.remember(t, "g0"), w.large(t, "g0")
	vm := "g0"
	for g := 1; g <= 5; g++ {
		child := fmt.Sprintf("g%d-1", g)
		w.must(t, "exec", vm, "--", "sh", "-c", fmt.Sprintf("echo %d >> /root/ages", g))
		w.must(t, "vm", "fork", vm, "--name", fmt.Sprintf("g%d", g))
		t.Cleanup(func() { w.Banger("rm", "-f", child) })
		w.must(t, "rm", "-f", vm)
		vm = child
		switch g {
		case 2:
			w.must(t, "vm", "suspend", vm)
			if s := w.show(t, vm); s.State != "suspended" || s.ShimPID != 0 {
				t.Errorf("%s is %s with the shim %d", vm, s.State, s.ShimPID)
			}
			w.must(t, "start", vm)
		case 3:
			w.must(t, "vm", "snapshot", "create", vm, "keep")
			w.must(t, "exec", vm, "--", "sh", "-c", "rm /root/large; sync")
			w.must(t, "vm", "snapshot", "restore", "-f", vm, "keep")
		}
		if got := w.ask(t, vm); got != secret {
			t.Errorf("generation %d remembers %q, not %q", g, got, secret)
		}
		if got := w.large(t, vm); got != large {
			t.Errorf("generation %d has another file: %s, not %s", g, got, large)
		}
	}
	w.must(t, "stop", vm)
	w.must(t, "start", vm)
	if got := w.must(t, "exec", vm, "--", "cat", "/root/ages"); strings.Join(strings.Fields(got), " ") != "1 2 3 4 5" || w.large(t, vm) != large {
		t.Errorf("after a boot from its disk it has %q", got)
	}
	w.must(t, "rm", "-f", vm)
	w.expectNothingLeft(t)
}

func TestDaemonKilledDuringAForkLeavesTheParentAlone(t *testing.T) {
	t.Parallel()
	w := borrowedWorld(t, "fork-killed")
	w.start(t, "parent")
	secret := w.remember(t, "parent")
	before := w.show(t, "parent")
	var alone []string
	eventually(t, "only the parent is there", func() bool { // and its template was made
		alone = w.leftovers()
		return len(w.templates()) == 1 && len(alone) == 3 // its directory, shim and VMM
	})
	for _, after := range moments {
		pid := w.daemonPID(t)
		cmd := w.Command("vm", "fork", "parent", "-n", "3")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(after)
		kill(t, pid)
		_ = cmd.Wait()
		if left := strings.Fields(w.must(t, "ps", "-a", "-q")); len(left) != 1 && len(left) != 4 { // none of them, or all
			t.Errorf("killed after %v: %d VMs are left", after, len(left))
		}
		w.Banger("rm", "-f", "parent-1", "parent-2", "parent-3")
		eventually(t, "what was not finished goes", func() bool {
			scratch, _ := filepath.Glob(filepath.Join(before.Dir, ".tmp-*"))
			return len(scratch) == 0 && len(w.leftovers()) == len(alone)
		})
	}
	if now := w.showAdopted(t, "parent"); now.ShimPID != before.ShimPID || w.ask(t, "parent") != secret {
		t.Errorf("the parent is another one: %+v", now)
	}
}
