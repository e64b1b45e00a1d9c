package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// earlierVariable names the banger of an earlier build: make test-skew.
const earlierVariable = "BANGER_TEST_EARLIER"

// TestVMsOfAnEarlierBuildGoOn updates banger under a VM that runs: its shim and its
// agent stay what they were, and everything else is new.
func TestVMsOfAnEarlierBuildGoOn(t *testing.T) {
	earlier := os.Getenv(earlierVariable)
	if earlier == "" {
		t.Skip("it takes an earlier build: make test-skew EARLIER=COMMIT")
	}
	w := borrowedWorld(t, "skew")
	now := w.Bin
	w.Bin = earlier
	w.start(t, "old")
	w.must(t, "exec", "old", "--", "sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo before >/root/before")
	was := w.show(t, "old")

	w.Bin = now
	if said := w.must(t, "doctor", "--json"); !strings.Contains(said, "under another build") {
		t.Errorf("doctor does not tell of the VM's build:\n%s", said)
	}
	w.reachOld(t, "old")
	if is := w.show(t, "old"); is.ShimPID != was.ShimPID || is.BootID != was.BootID || is.State != "running" {
		t.Errorf("after the update it is %+v, was %+v", is, was)
	}
	w.copyOld(t, "old")
	w.must(t, "restart", "old")
	w.reachOld(t, "old")
	if is := w.show(t, "old"); is.ShimPID == was.ShimPID {
		t.Error("it was restarted, and its shim is the earlier one")
	}
}

// reachOld tries every way into a guest.
func (w home) reachOld(t *testing.T, name string) {
	t.Helper()
	if got := w.must(t, "exec", name, "--", "cat", "/root/before"); got != "before" {
		t.Errorf("the guest's file holds %q", got)
	}
	if got := w.must(t, "ssh", name, "hostname"); got != name {
		t.Errorf("the guest calls itself %q", got)
	}
	back := filepath.Join(w.Home, "back")
	w.must(t, "cp", name+":/root/before", back)
	if got, err := os.ReadFile(back); err != nil || string(got) != "before\n" {
		t.Errorf("the copy holds %q (%v)", got, err)
	}
	for _, args := range [][]string{{"stats"}, {"health"}, {"ping"}, {"ports"}, {"net"}, {"pause"}, {"resume"}} {
		w.must(t, "vm", args[0], name)
	}
	w.must(t, "vm", "set", name, "--nat")
	w.must(t, "vm", "set", name, "--no-nat")
}

// copyOld forks, suspends and goes back, each with the process that lives in it.
func (w home) copyOld(t *testing.T, name string) {
	t.Helper()
	const alive = "pgrep -x sleep >/dev/null && hostname"
	if got := w.must(t, "fork", name, "--name", "young", "--rm", "--", "sh", "-c", alive); !strings.Contains(got, "young-1") {
		t.Errorf("the fork says %q", got)
	}
	w.must(t, "vm", "snapshot", "create", name, "then")
	w.must(t, "vm", "suspend", name)
	w.must(t, "start", name)
	w.must(t, "exec", name, "--", "sh", "-c", alive)
	w.must(t, "vm", "snapshot", "restore", "-f", name, "then")
	w.must(t, "exec", name, "--", "sh", "-c", alive)
	if list := w.must(t, "vm", "snapshot", "list", name); !strings.Contains(list, "then") {
		t.Errorf("the snapshots are\n%s", list)
	}
}
