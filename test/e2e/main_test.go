package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// world is one banger installation: its own HOME and XDG directories.
type world struct {
	home  string
	extra []string // more environment, KEY=VALUE
}

// shared is the world most tests live in. It stays between runs, so that
// image and kernel are built once; what runs in it ends with the tests.
var shared *world

var bin string

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		fmt.Println("e2e: skipped with -short: these tests boot real guests")
		os.Exit(0)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if err := setUp(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer shared.close()
	return m.Run()
}

func setUp() error {
	var err error
	if bin, err = filepath.Abs("../../bin/banger"); err != nil {
		return err
	}
	if _, err := os.Stat(bin); err != nil {
		return fmt.Errorf("%s is missing: run make build", bin)
	}
	if shared, err = openShared(); err != nil {
		return err
	}
	shared.clear()
	// Everything else needs both; building them is minutes of work that no
	// single test should be charged with.
	for _, args := range [][]string{{"kernel", "pull", "debian-cloud"}, {"image", "pull", "debian-bookworm"}} {
		if r := shared.banger(args...); r.status != 0 {
			return fmt.Errorf("banger %s: %s", strings.Join(args, " "), r.stderr)
		}
	}
	return nil
}

func openShared() (*world, error) {
	root := os.Getenv("BANGER_TEST_CACHE")
	if root == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return nil, err
		}
		root = filepath.Join(cache, "banger-test")
	}
	w := &world{home: filepath.Join(root, "e2e")}
	return w, os.MkdirAll(w.home, 0o700)
}

// newWorld is an empty installation for one test, in a directory of this name.
func newWorld(t *testing.T, name string) *world {
	t.Helper()
	w := &world{home: filepath.Join(t.TempDir(), name)}
	if err := os.MkdirAll(w.home, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w
}

// borrowedWorld is newWorld with the shared image and kernel in it.
func borrowedWorld(t *testing.T, name string) *world {
	t.Helper()
	w := newWorld(t, name)
	if err := os.MkdirAll(w.state(), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"images", "kernels"} {
		command(t, "cp", "-al", filepath.Join(shared.state(), dir), w.state())
	}
	if r := w.banger("kernel", "pull", "debian-cloud"); r.status != 0 {
		t.Fatal(r.stderr)
	}
	if r := w.banger("image", "pull", "debian-bookworm"); r.status != 0 {
		t.Fatal(r.stderr)
	}
	return w
}

func (w *world) state() string { return filepath.Join(w.home, ".local/state/banger") }

func (w *world) env() []string {
	env := []string{
		"HOME=" + w.home, "PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "USER=tester",
		"TMPDIR=" + os.TempDir(),
		"XDG_RUNTIME_DIR=" + filepath.Join(w.home, "run"),
	}
	return append(env, w.extra...)
}

// clear removes every VM, and close ends the daemon besides.
func (w *world) clear() {
	if r := w.banger("ps", "-a", "-q"); r.status == 0 {
		if ids := strings.Fields(r.stdout); len(ids) > 0 {
			w.banger(append([]string{"rm", "-f"}, ids...)...)
		}
	}
}

func (w *world) close() {
	w.clear()
	w.banger("daemon", "stop", "--force")
}

// result is what a command left behind.
type result struct {
	stdout, stderr string
	status         int
}

func (w *world) command(args ...string) *exec.Cmd {
	// A command that hangs must not hang the tests with it.
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Env = w.env()
	cmd.Dir = w.home
	cmd.WaitDelay = 10 * time.Second
	_ = cancel // ends with the process or the deadline
	return cmd
}

// banger runs a command to its end, with an empty stdin.
func (w *world) banger(args ...string) result { return finish(w.command(args...)) }

func finish(cmd *exec.Cmd) result {
	var stdout, stderr bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &stdout
	}
	cmd.Stderr = &stderr
	err := cmd.Run()
	r := result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.stderr += err.Error()
		r.status = -1
	}
	return r
}

// must runs a command that has to succeed and gives its stdout, trimmed.
func (w *world) must(t *testing.T, args ...string) string {
	t.Helper()
	r := w.banger(args...)
	if r.status != 0 {
		t.Fatalf("banger %s: status %d\n%s%s", strings.Join(args, " "), r.status, r.stdout, r.stderr)
	}
	return strings.TrimSpace(r.stdout)
}

// start makes a running VM that goes with the test.
func (w *world) start(t *testing.T, name string, flags ...string) {
	t.Helper()
	w.must(t, append([]string{"vm", "create", "--name", name, "--memory", "512"}, flags...)...)
	t.Cleanup(func() { w.banger("rm", "-f", name) })
}

// show decodes `vm show`.
func (w *world) show(t *testing.T, name string) (vm shown) {
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
}

// gone says whether no VM of this name is left.
func (w *world) gone(t *testing.T, name string) bool {
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
	for deadline := time.Now().Add(60 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
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
// environment or the directory in their command line.
func (w *world) processes() (found []string) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		environ, _ := os.ReadFile(filepath.Join(dir, "environ"))
		mine := bytes.Contains(cmdline, []byte(w.home)) || bytes.Contains(environ, []byte("HOME="+w.home+"\x00"))
		if mine && filepath.Base(dir) != fmt.Sprint(os.Getpid()) {
			found = append(found, filepath.Base(dir)+" "+strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
	return found
}
