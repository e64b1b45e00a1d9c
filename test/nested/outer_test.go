package nested

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"banger/test/world"
)

const root = "../.."

// outer is the VM that is a host to others.
type outer struct{ world *world.World }

// startOuter starts a VM with KVM in it, and with what it takes to run others.
func startOuter(t *testing.T) *outer {
	t.Helper()
	o := &outer{openWorld(t)}
	t.Cleanup(o.world.Close)
	// With more vCPUs the kernel of such a VM has crashed.
	o.banger(t, "vm", "create", "--name", "outer", "--cold", "--vcpu", "1", "--memory", "3G", "--disk-size", "8G")
	o.must(t, "modprobe kvm_amd && test -c /dev/kvm")
	o.giveQEMU(t)
	o.giveBanger(t)
	o.giveTests(t)
	return o
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

// hostQEMU is where the host's QEMU goes, under the paths it has on the host: the
// image may have other libraries, or none of them.
const hostQEMU = "/opt/host"

// giveQEMU puts the host's QEMU into the VM, with its libraries and firmware.
func (o *outer) giveQEMU(t *testing.T) {
	t.Helper()
	bin, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip(err)
	}
	files, libraries, loader := []string{bin}, map[string]bool{}, ""
	for file := range strings.FieldsSeq(output(t, "ldd", bin)) {
		if !strings.HasPrefix(file, "/") {
			continue
		}
		files = append(files, file)
		libraries[hostQEMU+filepath.Dir(file)] = true
		if strings.HasPrefix(filepath.Base(file), "ld-linux") {
			loader = hostQEMU + file
		}
	}
	script := "#!/bin/sh\nexec " + loader + " --library-path "
	for dir := range libraries {
		script += dir + ":"
	}
	script += " " + hostQEMU + bin
	for dir := range strings.FieldsSeq(output(t, bin, "-L", "help")) {
		dir = filepath.Clean(dir)
		if _, err := os.Stat(dir); err == nil {
			files = append(files, dir)
			script += " -L " + hostQEMU + dir
		}
	}
	tar := output(t, "tar", append([]string{"--create", "--dereference", "--absolute-names", "--transform=s,^/,,"}, files...)...)
	o.must(t, "mkdir -p "+hostQEMU)
	o.feed(t, tar, "tar -x -C "+hostQEMU)
	o.feed(t, script+" \"$@\"\n", "cat >/usr/local/bin/qemu-system-x86_64 && chmod 755 /usr/local/bin/qemu-system-x86_64")
}

// giveBanger puts banger into the VM, with this installation's kernel and image.
func (o *outer) giveBanger(t *testing.T) {
	t.Helper()
	const state = "/root/.local/state/banger"
	o.must(t, "mkdir -p -m 700 "+state)
	o.banger(t, "cp", o.world.Bin, "outer:/usr/local/bin/banger")
	for _, part := range []string{"kernels", "images"} {
		o.banger(t, "cp", filepath.Join(o.world.State(), part), "outer:"+state+"/")
	}
}

// giveTests puts the driver's tests into the VM. Their cache has the same kernels.
func (o *outer) giveTests(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("CGO_ENABLED", "0")
	output(t, "go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "qemu.test"), "banger/internal/vmm/qemu")
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

// command is a shell command in the VM, with no input.
func (o *outer) command(t *testing.T, command string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), o.world.Bin, "vm", "exec", "-i", "outer", "--", "sh", "-c", command)
	cmd.Env = o.world.Env()
	return cmd
}

// must runs a shell command in the VM that has to succeed, and gives what it said
// on stdout.
func (o *outer) must(t *testing.T, command string) string {
	t.Helper()
	return o.feed(t, "", command)
}

// feed is must with an input.
func (o *outer) feed(t *testing.T, input, command string) string {
	t.Helper()
	cmd := o.command(t, command)
	cmd.Stdin = strings.NewReader(input)
	var failure bytes.Buffer
	cmd.Stderr = &failure
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", command, err, out, failure.String())
	}
	return strings.TrimSpace(string(out))
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
