package nested

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"banger/test/world"
)

const root = "../.."

// person is an ordinary user of the outer VM, who runs the inner ones: banger asks for no more.
const person = "dev"

// outer is the VM that is a host to others.
type outer struct {
	world   *world.World
	drivers []driver
}

// startOuter starts a VM that can run others, with what that takes.
func startOuter(t *testing.T) *outer {
	t.Helper()
	qemu, firecracker := hostPrograms(t)
	o := &outer{world: openWorld(t)}
	t.Cleanup(o.world.Close)
	o.boot(t)
	o.keepAwake(t)
	o.giveBanger(t)
	o.giveProgram(t, "qemu-system-x86_64", qemu)
	o.drivers = append(o.drivers, driver{"qemu", "qemu.test"})
	if firecracker != "" {
		o.giveProgram(t, "firecracker", firecracker)
		o.drivers = append(o.drivers, driver{"firecracker", "firecracker.test"})
	}
	o.giveTests(t)
	return o
}

// hostPrograms finds what is to be tried, before anything takes time.
func hostPrograms(t *testing.T) (qemu, firecracker string) {
	t.Helper()
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Fatalf("there is no QEMU to try: %v: run make setup", err)
	}
	given := os.Getenv(firecrackerVariable)
	if given == "" {
		t.Logf("Firecracker is not tried: %s=/path names one", firecrackerVariable)
		return qemu, ""
	}
	if firecracker, err = exec.LookPath(given); err == nil {
		firecracker, err = filepath.Abs(firecracker)
	}
	if err != nil {
		t.Fatalf("%s names no program: %v", firecrackerVariable, err)
	}
	return qemu, firecracker
}

// boot starts the VM, a second time where its kernel did not live through the
// first: the emulated processor is not above suspicion, least of all with several
// of them.
func (o *outer) boot(t *testing.T, options ...string) {
	t.Helper()
	create := append([]string{"vm", "create", "--name", "outer", "--cold", "--vcpu", "1", "--memory", "3G", "--disk-size", "8G"}, options...)
	r := o.world.Banger(create...)
	if r.Status != 0 {
		t.Logf("the outer VM did not come up, which is tried once more: %s", r.Stderr)
		o.world.Clear()
		o.banger(t, create...)
	}
}

// keepAwake has something come into the VM twice a second, as long as the test runs.
//
// QEMU loses an interrupt now and then while its emulated processor runs a guest. Where it is
// the timer's, a kernel of one processor sets no other, and all in the VM stands still until an
// interrupt of another kind comes. Seen with 7.2: the processor halted with interrupts enabled and
// the timer's vector in its APIC's IRR, for as long as nobody asked anything; the kernel's
// watchdog then told of a lockup in whatever had run. What fits it is in do_vmexit (svm_helper.c, in 10.0
// as well): at each exit of a guest it clears a bit in the word of pending requests, without the
// lock under which others set theirs.
func (o *outer) keepAwake(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		for ctx.Err() == nil {
			ping := exec.CommandContext(ctx, o.world.Bin, "vm", "ping", "outer")
			ping.Env = o.world.Env()
			ping.Run() // an answer is nothing to wait for: the question is what wakes it
			select {
			case <-ctx.Done():
			case <-time.After(500 * time.Millisecond):
			}
		}
	})
	t.Cleanup(done.Wait)
	t.Cleanup(cancel)
}

// openWorld opens an installation that emulates whatever the host can, since KVM
// may not be nested.
func openWorld(t *testing.T) *world.World {
	t.Helper()
	const name = "nested"
	cache, err := world.Cache()
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(cache, name, ".config/banger/config.toml")
	if err := os.MkdirAll(filepath.Dir(config), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte("accel = \"tcg\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := world.OpenShared(root, name)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// hostFiles is where the host's programs go, under the paths they have on the host:
// the image may have other libraries, or none of them.
const hostFiles = "/opt/host"

// giveProgram puts a program of the host into the VM under a name, with its
// libraries, and QEMU's firmware.
func (o *outer) giveProgram(t *testing.T, name, bin string) {
	t.Helper()
	files, libraries, loader := []string{bin}, map[string]bool{}, ""
	needed, _ := exec.Command("ldd", bin).Output() // fails for a program that needs none
	for file := range strings.FieldsSeq(string(needed)) {
		if !strings.HasPrefix(file, "/") {
			continue
		}
		files = append(files, file)
		libraries[hostFiles+filepath.Dir(file)] = true
		if strings.HasPrefix(filepath.Base(file), "ld-linux") {
			loader = hostFiles + file
		}
	}
	script := "#!/bin/sh\nexec "
	if loader != "" {
		script += loader + " --library-path "
		for dir := range libraries {
			script += dir + ":"
		}
	}
	script += " " + hostFiles + bin
	if strings.HasPrefix(name, "qemu") {
		for dir := range strings.FieldsSeq(output(t, bin, "-L", "help")) {
			dir = filepath.Clean(dir)
			if _, err := os.Stat(dir); err == nil {
				files = append(files, dir)
				script += " -L " + hostFiles + dir
			}
		}
	}
	tar := output(t, "tar", append([]string{"--create", "--dereference", "--absolute-names", "--transform=s,^/,,"}, files...)...)
	o.must(t, "mkdir -p "+hostFiles)
	o.feed(t, tar, "tar -x -C "+hostFiles)
	o.feed(t, script+" \"$@\"\n", "cat >/usr/local/bin/"+name+" && chmod 755 /usr/local/bin/"+name)
}

// giveBanger puts banger into the VM, with this installation's kernel and image: for a person,
// and the kernel for root too, who needs one to find out about KVM.
func (o *outer) giveBanger(t *testing.T) {
	t.Helper()
	const state = ".local/state/banger"
	o.must(t, "useradd -m "+person+" && mkdir -p -m 700 ~/"+state)
	o.must(t, "mkdir -p -m 700 ~"+person+"/"+state)
	o.banger(t, "cp", o.world.Bin, "outer:/usr/local/bin/banger")
	for _, part := range []string{"kernels", "images"} {
		o.banger(t, "cp", filepath.Join(o.world.State(), part), "outer:/home/"+person+"/"+state+"/")
	}
	o.must(t, "cp -a ~"+person+"/"+state+"/kernels ~/"+state+"/ && chown -R "+person+": ~"+person)
}

// giveTests puts the drivers' tests into the VM. Their cache has the same kernels.
func (o *outer) giveTests(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("CGO_ENABLED", "0")
	for _, d := range o.drivers {
		output(t, "go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, d.tests), "banger/internal/vmm/"+d.name)
	}
	output(t, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "testguest"), "banger/internal/vmm/vmmtest/testguest")
	o.banger(t, "cp", dir, "outer:/opt/test")
	o.must(t, "ln -s /root/.local/state/banger/kernels /opt/test/kernels")
}

// banger runs a command of the host's banger.
func (o *outer) banger(t *testing.T, args ...string) {
	t.Helper()
	if r := o.world.Banger(args...); r.Status != 0 {
		t.Fatalf("banger %s: status %d\n%s", strings.Join(args, " "), r.Status, r.Stderr)
	}
}

// command is a shell command of somebody's in the VM, with no input.
func (o *outer) command(ctx context.Context, user, command string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, o.world.Bin, "vm", "exec", "-i", "--user", user, "outer", "--", "sh", "-c", command)
	cmd.Env = o.world.Env()
	return cmd
}

// mustLimit bounds a command in the VM that is not a suite: its kernel may stand still.
const mustLimit = 10 * time.Minute

// must runs a shell command of root's in the VM that has to succeed, and gives what it said
// on stdout.
func (o *outer) must(t *testing.T, command string) string {
	t.Helper()
	return o.feed(t, "", command)
}

// feed is must with an input.
func (o *outer) feed(t *testing.T, input, command string) string {
	t.Helper()
	out, err := o.run(t, "root", input, command)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// do is must for a person.
func (o *outer) do(t *testing.T, command string) string {
	t.Helper()
	out, err := o.run(t, person, "", command)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// run gives what a shell command said on stdout; its error has all that it said.
func (o *outer) run(t *testing.T, user, input, command string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), mustLimit)
	defer cancel()
	cmd := o.command(ctx, user, command)
	cmd.Stdin = strings.NewReader(input)
	var failure bytes.Buffer
	cmd.Stderr = &failure
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s%s", command, err, out, failure.String())
	}
	return strings.TrimSpace(string(out)), err
}

// output runs a command of the host that has to succeed.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return string(out)
}
