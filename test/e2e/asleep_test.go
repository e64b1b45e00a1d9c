package e2e

import (
	"os"
	"path/filepath"
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

func TestSuspendedVMIsWokenByItsWorkspace(t *testing.T) {
	dir := repository(t, "echo one >file; git add -A; git commit -qm one")
	w := shared
	w.must(t, "run", "-d", "--name", "sleeping-work", "--memory", "512", dir)
	t.Cleanup(func() { w.Banger("rm", "-f", "sleeping-work") })
	boot := w.show(t, "sleeping-work").BootID
	woken := func(args ...string) string {
		t.Helper()
		w.must(t, "vm", "suspend", "sleeping-work")
		r := w.Banger(args...)
		if v := w.show(t, "sleeping-work"); r.Status != 0 || !strings.Contains(r.Stderr, "waking sleeping-work") || v.State != "running" || v.BootID != boot {
			t.Fatalf("%q: status %d, %s; it is %s", args, r.Status, r.Stderr, v.State)
		}
		return r.Stdout
	}
	w.must(t, "exec", "sleeping-work", "--", "sh", "-c", "echo in memory >made")
	if got := woken("vm", "workspace", "export", "sleeping-work"); !strings.Contains(got, "+in memory") {
		t.Errorf("the patch is\n%s", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("two\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := woken("vm", "workspace", "status", "sleeping-work"); !strings.Contains(got, "file") || !strings.Contains(got, "made") {
		t.Errorf("the status is\n%s", got)
	}
	woken("vm", "workspace", "prepare", "sleeping-work", dir)
	if got := w.must(t, "exec", "sleeping-work", "--", "cat", "file", "made"); got != "two\nin memory" {
		t.Errorf("it has %q", got)
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
	had := w.templates() // of other shapes and builds, too
	w.start(t, "traced")
	if w.show(t, "traced").Template == "" {
		eventually(t, "a template of that boot", func() bool {
			return slices.ContainsFunc(w.templates(), func(dir string) bool { return !slices.Contains(had, dir) })
		})
	}
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
