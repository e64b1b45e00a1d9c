package shim

import (
	"bytes"
	"os"
	"strconv"
	"testing"

	"banger/internal/paths"
)

// A guest may reboot for ever.
func TestLogOfARunningShimIsBounded(t *testing.T) {
	dir := paths.VM(t.TempDir())
	before := bytes.Repeat([]byte("x"), 1<<20-1) // less than what a start says is missing
	if err := os.WriteFile(dir.ShimLog(), before, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := starter(t).Start(t.Context(), dir, fakeLaunch(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if old, err := os.ReadFile(dir.ShimLog() + ".1"); err != nil || !bytes.Equal(old, before) {
		t.Errorf("the predecessor has %d bytes, %v", len(old), err)
	}
	if text, err := os.ReadFile(dir.ShimLog()); err != nil || len(text) >= len(before) || !bytes.Contains(text, []byte(`"booted"`)) {
		t.Errorf("the log has %d bytes, %v", len(text), err)
	}
	st, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range []string{"1", "2"} { // where a crash is told of
		if to, _ := os.Readlink("/proc/" + strconv.Itoa(st.Shim.PID) + "/fd/" + fd); to != dir.ShimLog() {
			t.Errorf("descriptor %s is %s", fd, to)
		}
	}
}
