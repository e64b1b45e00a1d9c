package e2e

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger/test/world"
)

// home is one banger installation, in its own directories.
type home struct{ *world.World }

// shared is the installation most tests live in. It stays between runs, so
// that image and kernel are built once; what runs in it ends with the tests.
var shared home

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		fmt.Println("e2e: skipped with -short: these tests boot real guests")
		os.Exit(0)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Getenv(labVariable) != "" {
		var err error
		if shared, err = labShared(); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
		return m.Run()
	}
	w, err := world.OpenShared("../..", "e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	shared = home{w}
	defer shared.Close()
	return m.Run()
}

// newWorld is an empty installation for one test, in a directory of this name.
func newWorld(t *testing.T, name string) home {
	t.Helper()
	w := home{&world.World{Home: filepath.Join(t.TempDir(), name), Bin: shared.Bin}}
	if err := os.MkdirAll(w.Home, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// borrowedWorld is newWorld with the shared image and kernel in it.
func borrowedWorld(t *testing.T, name string) home {
	t.Helper()
	w := newWorld(t, name)
	if err := os.MkdirAll(w.State(), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"images", "kernels"} {
		command(t, "cp", "-al", filepath.Join(shared.State(), dir), w.State())
	}
	if err := w.Furnish(); err != nil {
		t.Fatal(err)
	}
	return w
}

// must runs a command that has to succeed and gives its stdout, trimmed.
func (w home) must(t *testing.T, args ...string) string {
	t.Helper()
	r := w.Banger(args...)
	if r.Status != 0 {
		t.Fatalf("banger %s: status %d\n%s%s", strings.Join(args, " "), r.Status, r.Stdout, r.Stderr)
	}
	return strings.TrimSpace(r.Stdout)
}

// start makes a running VM that goes with the test.
func (w home) start(t *testing.T, name string, flags ...string) {
	t.Helper()
	w.must(t, append([]string{"vm", "create", "--name", name, "--memory", "512"}, flags...)...)
	t.Cleanup(func() { w.Banger("rm", "-f", name) })
}

// show decodes `vm show`.
func (w home) show(t *testing.T, name string) (vm shown) {
	t.Helper()
	if err := json.Unmarshal([]byte(w.must(t, "vm", "show", name)), &vm); err != nil {
		t.Fatal(err)
	}
	return vm
}

type shown struct {
	ID        string `json:"id"`
	State     string `json:"state"`
	LastError string `json:"last_error"`
	ShimPID   int    `json:"shim_pid"`
	VMMPID    int    `json:"vmm_pid"`
	Dir       string `json:"dir"`
	BootID    string `json:"boot_id"`
	Template  string `json:"template"`
	GuestIP   string `json:"guest_ip"`

	HostAddress string `json:"host_address"`
}

// gone says whether no VM of this name is left.
func (w home) gone(t *testing.T, name string) bool {
	t.Helper()
	return !strings.Contains(w.must(t, "ps", "-a", "--json"), `"`+name+`"`)
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// eventually waits for something another process does, where there is
// nothing to wait on.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	within(t, 5*time.Minute, what, ok)
}

// within is eventually for what takes its time on a busy host.
func within(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still waiting: %s", what)
		}
	}
}

func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if pid <= 1 {
		t.Fatalf("no process to kill: pid %d", pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// processes lists the processes of this world, by the HOME in their
// environment, the directory in their command line or the one they stand in. A
// VMM that was restored has only the last.
func (w home) processes() (found []string) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		environ, _ := os.ReadFile(filepath.Join(dir, "environ"))
		cwd, _ := os.Readlink(filepath.Join(dir, "cwd"))
		mine := bytes.Contains(cmdline, []byte(w.Home)) || bytes.Contains(environ, []byte("HOME="+w.Home+"\x00")) ||
			strings.HasPrefix(cwd, w.Home+"/")
		if mine && filepath.Base(dir) != fmt.Sprint(os.Getpid()) {
			found = append(found, filepath.Base(dir)+" "+strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
	return found
}
