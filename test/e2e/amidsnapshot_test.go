package e2e

import (
	"strings"
	"testing"
)

// Moments of snapshots.
func (c *cutOff) snapping() bool { return there(c.dir, "snapshots", ".tmp-*") }
func (c *cutOff) writing() bool {
	return there(c.dir, "snapshots", ".tmp-*", "snapshot.json") || c.snapped()
}
func (c *cutOff) snapped() bool { return there(c.dir, "snapshots", "[0-9a-f]*") }
func (c *cutOff) copying() bool { return there(c.dir, ".tmp-restore-*") || c.decided() }
func (c *cutOff) decided() bool { return there(c.dir, "restoring") || there(c.dir, ".tmp-restored") }

// snapshots are the names of the VM's.
func (c *cutOff) snapshots(t *testing.T) []string {
	t.Helper()
	return strings.Fields(c.must(t, "vm", "snapshot", "list", "-q", "p"))
}

func (c *cutOff) removeSnapshots(t *testing.T) {
	t.Helper()
	for _, id := range c.snapshots(t) {
		c.must(t, "vm", "snapshot", "delete", "p", id)
	}
}

// Whoever is killed, there is a snapshot that is whole or none, and the VM is the
// one it was; but if its shim was, which is a power cut.
func TestKilledAmidASnapshot(t *testing.T) {
	t.Parallel()
	c := newCutOff(t, "amid-snapshot")
	for _, cut := range []struct {
		name     string
		moment   func() bool
		who      victim
		powerCut bool
	}{
		{"command", c.snapping, theCommand, false},
		{"command at the end", c.writing, theCommand, false},
		{"daemon", c.snapping, theDaemon, false},
		{"daemon at the end", c.writing, theDaemon, false},
		{"shim", c.snapping, theShim, true},
	} {
		t.Run(cut.name, func(t *testing.T) {
			before := c.secret
			c.kill(t, func() { c.removeSnapshots(t) }, cut.moment, cut.who, "vm", "snapshot", "create", "p")
			c.expectWhole(t, cut.powerCut)
			for _, id := range c.snapshots(t) {
				t.Log("it was made")
				c.must(t, "vm", "snapshot", "restore", "-f", "p", id)
				if c.secret = before; c.answer(t, "p") != before {
					t.Error("its memory is another one")
				}
				c.must(t, "vm", "snapshot", "delete", "p", id)
			}
		})
	}
}

// Whoever is killed, the VM is all that it was, or all that it was at the snapshot.
func TestKilledAmidARestore(t *testing.T) {
	t.Parallel()
	c := newCutOff(t, "amid-restore")
	c.must(t, "vm", "snapshot", "create", "p", "then")
	then := c.secret
	for _, cut := range []struct {
		name   string
		moment func() bool
		who    victim
	}{
		{"command", c.copying, theCommand},
		{"daemon", c.copying, theDaemon},
		{"shim", c.copying, theShim},
		{"daemon once it is decided", c.decided, theDaemon},
	} {
		t.Run(cut.name, func(t *testing.T) {
			c.kill(t, func() { c.must(t, "exec", "p", "--", "sh", "-c", "echo later > /root/file; sync") },
				cut.moment, cut.who, "vm", "snapshot", "restore", "-f", "p", "then")
			state := c.show(t, "p").State
			c.must(t, "start", "p")
			file := c.must(t, "exec", "p", "--", "cat", "/root/file")
			t.Logf("it was %s, and its file has %q", state, file)
			if file != "later" && file != "kept" {
				t.Error("that is neither what it was nor the snapshot's")
			}
			if state == "running" && c.answer(t, "p") != then {
				t.Error("its memory is another one")
			}
			c.expectAlone(t)
			c.must(t, "vm", "snapshot", "restore", "-f", "p", "then")
			if got := c.must(t, "exec", "p", "--", "cat", "/root/file"); got != "kept" || c.answer(t, "p") != then {
				t.Errorf("restored, its file has %q", got)
			}
		})
	}
}
