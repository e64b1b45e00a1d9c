package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"banger/test/world"
)

// TestBadInputIsNamedAndLeavesNothing runs every kind of bad input a person
// can give and looks for a word that names it, a hint, and a clean world.
func TestBadInputIsNamedAndLeavesNothing(t *testing.T) {
	t.Parallel()
	w := borrowedWorld(t, "bad input")
	w.must(t, "vm", "create", "--no-start", "--name", "web-one")
	w.must(t, "vm", "create", "--no-start", "--name", "web-two")
	noKernel := filepath.Join(w.Home, "no-kernel")
	if err := os.WriteFile(noKernel, []byte("this is a text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   string
		status int
		want   string // in stderr
	}{
		{"vm show nothing-like-it", 1, `"nothing-like-it"`},
		{"vm show web", 1, "web-one"},
		{"vm stop web", 1, "web-two"},
		{"exec web -- true", 125, "web-two"},
		{"exec nothing-like-it -- true", 125, "banger ps -a"},
		{"vm create --name Web", 2, `'W' at position 1`},
		{"vm create --name web-one", 1, "web-one"},
		{"run --name web-one -- true", 125, "banger vm"},
		{"vm create --disk-size 12Q", 2, `"12Q"`},
		{"vm create --disk-size 512M", 2, "1G"},
		{"vm create --memory 1", 2, "128"},
		{"vm create --memory 99999999", 2, "host"},
		{"vm create --vcpu 0", 2, "virtual CPUs"},
		{"run --rm --", 2, "--"},
		{"exec web-one --", 2, "--"},
		{"vm create --image no-such-image", 1, "no-such-image"},
		{"kernel import mine --vmlinuz " + noKernel + " --modules " + w.Home, 1, noKernel},
		{"kernel pull no-such-kernel", 1, "no-such-kernel"},
		{"image show no-such-image", 1, "no-such-image"},
		{"vm frobnicate", 2, "frobnicate"},
		{"vm list --frobnicate", 2, "frobnicate"},
		{"frobnicate", 2, "frobnicate"},
		{"vm exec", 2, "vm"},
		{"cp a b", 2, "VM:PATH"},
		{"vm rename web-one web-two", 1, "web-two"},
		{"vm rename web-one -x", 2, ""},
	} {
		args := strings.Fields(strings.ReplaceAll(c.args, w.Home, "HOME"))
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "HOME", w.Home)
		}
		r := w.Banger(args...)
		if r.Status != c.status || !strings.Contains(r.Stderr, c.want) || r.Stdout != "" {
			t.Errorf("banger %s: status %d, want %d; stderr lacks %q:\n%s%s", c.args, r.Status, c.status, c.want, r.Stdout, r.Stderr)
		}
	}
	w.must(t, "rm", "web-one", "web-two")
	w.expectNothingLeft(t)
}

func TestOddPlacesForTheStateDirectorySimplyWork(t *testing.T) {
	t.Parallel()
	long := "long-" + strings.Repeat("x", 145)
	for _, name := range []string{"a space, ? # % and é", long} {
		w := borrowedWorld(t, name)
		if got := w.must(t, "run", "--rm", "--", "echo", "works"); got != "works" {
			t.Errorf("in %q: %q", name, got)
		}
		w.expectNothingLeft(t)
	}
}

func TestWithoutARuntimeDirectoryItSimplyWorks(t *testing.T) {
	t.Parallel()
	w := borrowedWorld(t, "no-runtime")
	w.Extra = []string{"XDG_RUNTIME_DIR="}
	if got := w.must(t, "run", "--rm", "--", "echo", "works"); got != "works" {
		t.Errorf("%q", got)
	}
}

func TestClosedStdinIsAnEmptyOne(t *testing.T) {
	shared.start(t, "closed")
	cmd := exec.Command("sh", "-c", `exec "$0" exec closed -- sh -c 'cat; echo done' <&-`, shared.Bin)
	cmd.Env = shared.Env()
	if r := world.Finish(cmd); r.Stdout != "done\n" || r.Status != 0 {
		t.Errorf("%q, %d, %s", r.Stdout, r.Status, r.Stderr)
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	shared.must(t, "ps")
	r := shared.Banger("daemon", "run")
	if r.Status != 1 || !strings.Contains(r.Stderr, "already") {
		t.Errorf("status %d, %s", r.Status, r.Stderr)
	}
}

func TestMissingQEMUIsNamed(t *testing.T) {
	t.Parallel()
	w := borrowedWorld(t, "no-qemu")
	writeConfig(t, w, `qemu_bin = "/nonexistent/qemu-system-x86_64"`)
	r := w.Banger("run", "--rm", "--", "true")
	if r.Status != 125 || !strings.Contains(r.Stderr, "/nonexistent/qemu-system-x86_64") || !strings.Contains(r.Stderr, "hint:") {
		t.Errorf("status %d, %s", r.Status, r.Stderr)
	}
	w.expectNothingLeft(t)
}

// A guest whose root is no file system.
func TestGuestThatCannotStartIsKeptAsErrorWithItsConsole(t *testing.T) {
	t.Parallel()
	w := borrowedWorld(t, "no-root")
	images, _ := filepath.Glob(filepath.Join(w.State(), "images/*/rootfs.ext4"))
	if len(images) != 1 {
		t.Fatalf("images: %q", images)
	}
	// Replaced, not written to: it shares its file with the other worlds.
	info, err := os.Stat(images[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(images[0]), os.WriteFile(images[0], nil, 0o600), os.Truncate(images[0], info.Size())); err != nil {
		t.Fatal(err)
	}
	r := w.Banger("run", "--name", "hopeless", "--memory", "512", "--", "true")
	if r.Status != 125 || !strings.Contains(r.Stderr, "before it came up") || !strings.Contains(r.Stderr, "banger vm logs hopeless") {
		t.Errorf("status %d, %s", r.Status, r.Stderr)
	}
	vm := w.show(t, "hopeless")
	if vm.State != "error" || !strings.Contains(vm.LastError, "before it came up") || alive(vm.VMMPID) {
		t.Errorf("shown as %+v", vm)
	}
	if logs := w.must(t, "logs", "hopeless"); !strings.Contains(logs, "cannot mount the root") {
		t.Errorf("the console has %q", logs)
	}
	w.must(t, "rm", "hopeless")
	w.expectNothingLeft(t)
}

// pathWithout is a PATH that has all programs of the host's but one.
func pathWithout(t *testing.T, program string) string {
	t.Helper()
	dir := t.TempDir()
	for _, from := range filepath.SplitList(os.Getenv("PATH")) {
		entries, _ := os.ReadDir(from)
		for _, e := range entries {
			if e.Name() != program {
				_ = os.Symlink(filepath.Join(from, e.Name()), filepath.Join(dir, e.Name())) // the first one counts
			}
		}
	}
	return dir
}

func TestImageThatCannotBeBuiltSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "no-mmdebstrap")
	if err := os.MkdirAll(w.State(), 0o700); err != nil {
		t.Fatal(err)
	}
	command(t, "cp", "-al", filepath.Join(shared.State(), "kernels"), w.State())
	w.Extra = []string{"PATH=" + pathWithout(t, "mmdebstrap")}
	r := w.Banger("run", "--rm", "--", "true")
	if r.Status != 125 || !strings.Contains(r.Stderr, "mmdebstrap is not installed") || !strings.Contains(r.Stderr, "hint: sudo apt install") {
		t.Errorf("status %d, %s", r.Status, r.Stderr)
	}
	w.expectNothingLeft(t)
}

// As when the network is down: the lists of packages cannot be fetched.
func TestPackageSourcesThatCannotBeReachedAreNamed(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("a network of its own needs root")
	}
	w := newWorld(t, "no-network")
	cmd := w.Command("run", "--rm", "--", "true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	r := world.Finish(cmd) // the daemon that it starts is in that network too
	if r.Status != 125 || !strings.Contains(r.Stderr, "package sources cannot be reached") || !strings.Contains(r.Stderr, "hint:") {
		t.Errorf("status %d, %s", r.Status, r.Stderr)
	}
	w.expectNothingLeft(t)
}

func TestBadConfigurationIsNamedWithItsLine(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "bad-config")
	writeConfig(t, w, "log_level = \"info\"\nno_such_key = 1\n")
	r := w.Banger("vm", "create")
	if r.Status == 0 || !strings.Contains(r.Stderr, "no_such_key") || !strings.Contains(r.Stderr, "2") {
		t.Errorf("status %d, %s", r.Status, r.Stderr)
	}
}

func writeConfig(t *testing.T, w home, text string) {
	t.Helper()
	dir := filepath.Join(w.Home, ".config/banger")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestUnwritableStateDirectoryIsNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "unwritable")
	if err := os.MkdirAll(filepath.Dir(w.State()), 0o700); err != nil {
		t.Fatal(err)
	}
	// A file where the directory should be: root is stopped by it too.
	if err := os.WriteFile(w.State(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := w.Banger("ps")
	if r.Status != 1 || !strings.Contains(r.Stderr, w.State()) {
		t.Errorf("status %d, %s", r.Status, r.Stderr)
	}
}

// onSmallDisk is a world whose VMs lie on a small file system: a tmpfs, which needs
// nothing of the machine's own.
func onSmallDisk(t *testing.T, name, size string) (w home, vms string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	w = newWorld(t, name)
	vms = filepath.Join(w.State(), "vms")
	if err := os.MkdirAll(vms, 0o700); err != nil {
		t.Fatal(err)
	}
	command(t, "mount", "-t", "tmpfs", "-o", "size="+size+",mode=700", "banger-test", vms)
	t.Cleanup(func() {
		w.Close()
		// A daemon has let go of its lock before of its other files.
		eventually(t, "nobody has a file there", func() bool { return exec.Command("umount", vms).Run() == nil })
	})
	for _, dir := range []string{"images", "kernels"} {
		command(t, "cp", "-al", filepath.Join(shared.State(), dir), w.State())
	}
	w.must(t, "kernel", "pull", "debian-cloud")
	w.must(t, "image", "pull", "debian-bookworm")
	return w, vms
}

func TestFullDiskWhileCreating(t *testing.T) {
	w, _ := onSmallDisk(t, "full", "64k")
	r := w.Banger("run", "--rm", "--", "true")
	if r.Status != 125 || !strings.Contains(r.Stderr, "space") {
		t.Errorf("status %d, %s", r.Status, r.Stderr)
	}
	w.expectNothingLeft(t)
}

func TestFullDiskWhileRunning(t *testing.T) {
	w, vms := onSmallDisk(t, "fills", "96m")
	w.must(t, "vm", "create", "--name", "fills", "--memory", "512", "--cold")
	ballast := filepath.Join(vms, "ballast")
	command(t, "fallocate", "-l", "64m", ballast)
	write := w.Command("exec", "fills", "--", "sh", "-c", "head -c 48M /dev/zero >/data && sync && sha256sum /data")
	done := make(chan world.Result, 1)
	go func() { done <- world.Finish(write) }()
	eventually(t, "the guest stands still", func() bool { return w.show(t, "fills").State == "paused" })
	if s := w.show(t, "fills"); !strings.Contains(s.LastError, "no space") {
		t.Errorf("the error is %q", s.LastError)
	}
	if r := w.Banger("exec", "fills", "--", "true"); r.Status != 125 || !strings.Contains(r.Stderr, "no space") {
		t.Errorf("a command: status %d, %s", r.Status, r.Stderr)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	const sum = "152ba99dbaf6c7dde5955a8484835194ed4fc0f20a0ea774667f148a25cb03c4  /data\n"
	if r := <-done; r.Status != 0 || r.Stdout != sum {
		t.Errorf("what wrote: status %d, %q %s", r.Status, r.Stdout, r.Stderr)
	}
	if s := w.show(t, "fills"); s.State != "running" || s.LastError != "" {
		t.Errorf("it is %s, %q", s.State, s.LastError)
	}
	w.must(t, "rm", "-f", "fills")
}

func TestConsoleFloodStaysBoundedAndDelaysNothing(t *testing.T) {
	shared.start(t, "flood")
	shared.must(t, "exec", "flood", "--", "sh", "-c", "head -c 3M /dev/zero | tr '\\0' x | fold >/dev/ttyS0")
	shared.must(t, "exec", "flood", "--", "true")
	dir := shared.show(t, "flood").Dir
	var size int64
	logs, _ := filepath.Glob(filepath.Join(dir, "console.log*"))
	for _, log := range logs {
		if info, err := os.Stat(log); err == nil {
			size += info.Size()
		}
	}
	if size == 0 || size > 4<<20 {
		t.Errorf("%d bytes of console in %v", size, logs)
	}
}
