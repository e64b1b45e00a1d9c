package nested

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// inner is a VM of the person's in the outer VM.
type inner struct {
	*outer
	name string
}

// shown is what banger says of one.
type shown struct {
	State       string   `json:"state"`
	Template    string   `json:"template"`
	BootID      string   `json:"boot_id"`
	HostAddress string   `json:"host_address"`
	ShimPID     int      `json:"shim_pid"`
	VMMPID      int      `json:"vmm_pid"`
	Isolation   []string `json:"isolation"`
	Runtime     struct {
		VMM   string `json:"vmm"`
		Accel string `json:"accel"`
	} `json:"runtime"`
}

func (i inner) show(t *testing.T) (s shown) {
	t.Helper()
	if err := json.Unmarshal([]byte(i.do(t, "banger vm show "+i.name)), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// in runs a shell command in it, which holds no single quotes.
func (i inner) in(t *testing.T, command string) string {
	t.Helper()
	return i.do(t, fmt.Sprintf("banger exec %s -- sh -c '%s'", i.name, command))
}

// want is in for a command that has to say something.
func (i inner) want(t *testing.T, command, want string) {
	t.Helper()
	if got := i.in(t, command); got != want {
		t.Errorf("%s: %s says %q, not %q", i.name, command, got, want)
	}
}

// Signs are what a VM is known by: one in its memory, one on its disk, and a process.
const (
	leaveSigns = "echo memory >/run/sign && echo disk >/root/sign && sync"
	readSigns  = "cat /run/sign /root/sign; pgrep -c sleep"
	allSigns   = "memory\ndisk\n1"
)

// sign leaves the signs in it.
func (i inner) sign(t *testing.T) {
	t.Helper()
	i.in(t, leaveSigns)
	i.do(t, "banger exec -d "+i.name+" -- sleep infinity")
}

// noProcess waits until a process of the outer VM is gone.
func (o *outer) noProcess(t *testing.T, pid int) {
	t.Helper()
	o.do(t, fmt.Sprintf("timeout 60 sh -c 'while [ -e /proc/%d ]; do sleep 0.1; done'", pid))
}

// testNothingLeft wants nothing of VMs to be there: no row, no process, nothing that doctor knows of.
func (o *outer) testNothingLeft(t *testing.T) {
	if left := o.do(t, "banger ps -a -q; ls ~/.local/state/banger/vms; pgrep -a 'firecracker|qemu|ld-linux' || true"); left != "" {
		t.Errorf("left: %s", left)
	}
	o.testVerdict(t, person, "PASS world")
}

// distinct wants n lines, each another.
func distinct(t *testing.T, lines []string, n int) {
	t.Helper()
	seen := make(map[string]bool)
	for _, line := range lines {
		seen[line] = true
	}
	if len(seen) != n || len(lines) != n {
		t.Errorf("%d lines and %d different ones, not %d:\n%s", len(lines), len(seen), n, strings.Join(lines, "\n"))
	}
}
