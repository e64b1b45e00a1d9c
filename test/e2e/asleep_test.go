package e2e

import (
	"slices"
	"strings"
	"testing"
)

// What was written and not yet on the disk is in a suspended VM's memory.
func TestSuspendedVMIsWokenAndLosesNothing(t *testing.T) {
	w := shared
	w.start(t, "asleep")
	boot := w.show(t, "asleep").BootID
	w.must(t, "exec", "asleep", "--", "sh", "-c", "echo in memory > /root/file")
	w.must(t, "vm", "suspend", "asleep")
	if v := w.show(t, "asleep"); v.State != "suspended" || v.ShimPID != 0 || v.VMMPID != 0 {
		t.Errorf("it is %s with the processes %d and %d", v.State, v.ShimPID, v.VMMPID)
	}
	r := w.Banger("exec", "asleep", "--", "cat", "/root/file")
	if r.Status != 0 || r.Stdout != "in memory\n" || !strings.Contains(r.Stderr, "waking asleep") {
		t.Errorf("status %d, %q, %q", r.Status, r.Stdout, r.Stderr)
	}
	if v := w.show(t, "asleep"); v.State != "running" || v.BootID != boot {
		t.Errorf("it is %s and has the boot id %s, not %s", v.State, v.BootID, boot)
	}
	w.must(t, "exec", "asleep", "--", "sh", "-c", "echo and more >> /root/file")
	w.must(t, "vm", "suspend", "asleep")
	w.must(t, "stop", "asleep")
	if v := w.show(t, "asleep"); v.State != "stopped" {
		t.Errorf("it is %s", v.State)
	}
	w.must(t, "start", "asleep")
	if got := w.must(t, "exec", "asleep", "--", "cat", "/root/file"); got != "in memory\nand more" {
		t.Errorf("after a boot from its disk it has %q", got)
	}
	if w.show(t, "asleep").BootID == boot {
		t.Error("it was not booted")
	}
}

// traced are the phases a command told of on stderr.
func traced(stderr string) (phases []string) {
	for line := range strings.Lines(stderr) {
		if f := strings.Fields(line); len(f) == 4 && f[0] == "banger:" && f[2] == "ms" {
			phases = append(phases, f[3])
		}
	}
	return phases
}

func TestTracesNameWhereTheTimeWent(t *testing.T) {
	w := shared
	w.start(t, "traced") // and so there is a template
	w.must(t, "vm", "create", "--name", "first", "--memory", "512", "--no-start")
	t.Cleanup(func() { w.Banger("rm", "-f", "first", "first-1") })
	own := []string{"reserve", "shim", "VMM", "load", "link", "contract"}
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"run", []string{"run", "--rm", "--memory", "512", "--trace", "--", "true"}, append(own, "disk", "exec")},
		{"first start", []string{"start", "--trace", "first"}, own},
		{"fork", []string{"fork", "--trace", "first"}, append(own, "save", "disk")},
		{"fork with a command", []string{"fork", "--trace", "--rm", "first", "--", "true"}, append(own, "save", "disk", "exec")},
	} {
		r := w.Banger(c.args...)
		got := traced(r.Stderr)
		for _, phase := range c.want {
			if r.Status != 0 || !slices.Contains(got, phase) {
				t.Errorf("%s: no phase %s\n%s", c.name, phase, r.Stderr)
			}
		}
	}
	json := w.must(t, "vm", "show", "first-1")
	for _, phase := range append(own, "save", "disk") {
		if !strings.Contains(json, `"name": "`+phase+`"`) {
			t.Errorf("vm show has no phase %s:\n%s", phase, json)
		}
	}
}
