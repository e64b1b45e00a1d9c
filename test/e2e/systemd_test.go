package e2e

import (
	"bufio"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/test/world"
)

// lastWords is a service that has something to say when it ends.
const lastWords = `printf '[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true\nExecStop=sh -c "echo ended in order >/dev/console"\n' \
	>/run/systemd/system/words.service && systemctl start words`

// identity is whose a machine is, as systemd's tools say it: three lines, and a
// fourth that journald wrote.
const identity = `hostnamectl hostname; hostnamectl | grep -o 'Machine ID: .*'; hostnamectl | grep -o 'Boot ID: .*'
for i in $(seq 100); do logger -t us mine; journalctl -q -t us -n 1 -o cat | grep -q mine && break; sleep 0.1; done
for f in _HOSTNAME _MACHINE_ID _BOOT_ID; do journalctl -q -t us -n 1 -o cat --output-fields $f -o export | grep ^$f; done`

// madeSystemd says whether a template of a systemd guest was made since then.
func (w home) madeSystemd(since time.Time) bool {
	for _, dir := range w.templates() {
		record := filepath.Join(dir, "template.json")
		text, _ := os.ReadFile(record)
		info, err := os.Stat(record)
		if err == nil && info.ModTime().After(since) && strings.Contains(string(text), `"init": "systemd"`) {
			return true
		}
	}
	return false
}

// reachBySystemd tries every way into a guest whose first process is not the agent.
func (w home) reachBySystemd(t *testing.T, name string) {
	t.Helper()
	c, dir := newClient(t, w), t.TempDir()
	file := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	if err := os.WriteFile(filepath.Join(dir, "there"), []byte("and back"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.must(t, "cp", filepath.Join(dir, "there"), name+":/root/copied")
	w.must(t, "cp", name+":/root/copied", filepath.Join(dir, "back"))
	c.run("scp", "-q", name+".vm:/root/copied", filepath.Join(dir, "got"))
	if back, got := file("back"), file("got"); back != "and back" || got != "and back" {
		t.Errorf("cp brought %q back, scp %q", back, got)
	}
	if got := c.input("in\n", "ssh", name+".vm", "cat; cat /proc/1/comm"); got != "in\nsystemd\n" {
		t.Errorf("ssh says %q", got)
	}
	master, bus := filepath.Join(dir, "master"), filepath.Join(dir, "bus")
	if r := world.Finish(c.command("ssh", "-M", "-S", master, "-f", "-N", "-L", bus+":/run/dbus/system_bus_socket", name+".vm")); r.Status != 0 {
		t.Fatal(r.Stderr)
	}
	defer world.Finish(c.command("ssh", "-S", master, "-O", "exit", name+".vm"))
	conn, err := net.Dial("unix", bus)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "\x00AUTH\r\n")
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	if got, err := bufio.NewReader(conn).ReadString('\n'); !strings.HasPrefix(got, "REJECTED EXTERNAL") {
		t.Errorf("the guest's bus says %q through ssh -L, %v", got, err)
	}
	tt := openTerminal(t, 24, 80)
	tt.start(t, w.Command("exec", "-it", name, "--", "sh", "-c", "stty size; read word; echo heard $word"))
	tt.await(t, "24 80")
	tt.typed(t, "this\n")
	tt.await(t, "heard this")
}

func TestSystemdIsTheFirstProcess(t *testing.T) {
	t.Parallel()
	w, began := shared, time.Now()
	w.start(t, "systemd-one", "--init", "systemd")
	w.check(t, "systemd-one", []look{
		{"the first process", `cat /proc/1/comm; tr '\0' '\n' </proc/1/cmdline`, "systemd\n/sbin/init"},
		{"all has come up", `systemctl is-system-running --wait`, "running"},
		{"it may be killed for memory as at birth", `cat /proc/1/oom_score_adj /proc/self/oom_score_adj`, "0\n0"},
		{"a cgroup of its own for commands", `cat /proc/self/cgroup`, "0::/banger/commands"},
		{"names are looked up", `test -s /etc/resolv.conf && cat /run/systemd/resolved.conf.d/*.conf | grep -c LLMNR`, "1"},
		{"a service", lastWords + `; systemctl is-active words`, "active"},
	})
	t.Run("clients", func(t *testing.T) { w.reachBySystemd(t, "systemd-one") })
	if w.show(t, "systemd-one").Template == "" {
		within(t, 5*time.Minute, "a template of its first boot", func() bool { return w.madeSystemd(began) })
	}
	w.start(t, "systemd-two", "--init", "systemd")
	w.must(t, "vm", "fork", "systemd-one", "--name", "systemd-fork")
	t.Cleanup(func() { w.Banger("rm", "-f", "systemd-fork-1") })
	if w.show(t, "systemd-two").Template == "" {
		t.Error("the second began as no fork of a template")
	}
	for _, name := range []string{"systemd-one", "systemd-two", "systemd-fork-1"} {
		vm := w.show(t, name)
		boot := strings.ReplaceAll(vm.BootID, "-", "")
		want := strings.Join([]string{name, "Machine ID: " + vm.ID, "Boot ID: " + boot, "_HOSTNAME=" + name, "_MACHINE_ID=" + vm.ID, "_BOOT_ID=" + boot}, "\n")
		if got := w.must(t, "exec", name, "--", "sh", "-c", identity); got != want {
			t.Errorf("%s is\n%s\nnot\n%s", name, got, want)
		}
	}
	w.must(t, "stop", "systemd-one")
	w.Banger("exec", "systemd-fork-1", "--", "poweroff") // which may end with it
	eventually(t, "it is off", func() bool { return w.show(t, "systemd-fork-1").State == "stopped" })
	for _, name := range []string{"systemd-one", "systemd-fork-1"} {
		if logs := w.must(t, "logs", name); !strings.Contains(logs, "ended in order") {
			t.Errorf("%s did not end its services:\n%s", name, logs)
		}
		if why := w.show(t, name).LastError; why != "" {
			t.Errorf("%s ended with %q", name, why)
		}
	}
}
