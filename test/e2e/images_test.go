package e2e

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"banger/test/world"
)

const hello = `package main

import (
	"fmt"
	"os"
	"strings"
)

func main() {
	dir, _ := os.Getwd()
	text, _ := os.ReadFile("/note")
	fmt.Println(dir, os.Getenv("GREETING"), os.Getuid(), strings.TrimSpace(string(text)), os.Args[1:])
}
`

// staticProgram builds a program that needs nothing around it.
func staticProgram(t *testing.T, source string) []byte {
	t.Helper()
	dir := t.TempDir()
	for file, text := range map[string]string{"main.go": source, "go.mod": "module hello\n\ngo 1.26\n"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", "hello", ".")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, "hello"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// serveImage puts an image of one program into a registry on this machine.
func serveImage(t *testing.T, program []byte) (ref string) {
	t.Helper()
	return offerImage(t, "tiny:1", map[string][]byte{"hello": program},
		v1.Config{Env: []string{"GREETING=hi"}, WorkingDir: "/", User: "1234", Entrypoint: []string{"/hello"}})
}

// offerImage puts an image of these files into a registry on this machine.
func offerImage(t *testing.T, repository string, files map[string][]byte, config v1.Config) (ref string) {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	content := tarOf(t, files)
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		tarball.WithCompressionLevel(gzip.BestSpeed))
	img := empty.Image
	if err == nil {
		img, err = mutate.AppendLayers(img, layer)
	}
	if err == nil {
		c, _ := img.ConfigFile()
		c = c.DeepCopy()
		c.OS, c.Architecture, c.Config = "linux", "amd64", config
		img, err = mutate.ConfigFile(img, c)
	}
	ref = strings.TrimPrefix(server.URL, "http://") + "/" + repository
	var tag name.Reference
	if err == nil {
		tag, err = name.ParseReference(ref)
	}
	if err == nil {
		err = remote.Write(tag, img)
	}
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func tarOf(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range files {
		err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content))})
		if err == nil {
			_, err = w.Write(content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// serveKernel puts the kernel that all tests boot into a registry, with those of its
// modules alone that a guest needs to find its disks.
func (w home) serveKernel(t *testing.T) (ref string) {
	t.Helper()
	var k struct{ Path, Release string }
	if err := json.Unmarshal([]byte(w.must(t, "kernel", "show", "debian-cloud")), &k); err != nil {
		t.Fatal(err)
	}
	read := func(path string) []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	dir := "lib/modules/" + k.Release + "/"
	modules := map[string][]byte{
		dir + "modules.builtin": []byte(command(t, "debugfs", "-R", "cat /"+k.Release+"/modules.builtin", filepath.Join(k.Path, "modules.ext4"))),
	}
	for name := range strings.FieldsSeq(string(read(filepath.Join(k.Path, "early", "order")))) {
		_, plain, _ := strings.Cut(name, "-")
		modules[dir+"kernel/"+plain] = read(filepath.Join(k.Path, "early", name))
	}
	files := map[string][]byte{"kernel": read(filepath.Join(k.Path, "vmlinuz")), "kernel.tar": tarOf(t, modules)}
	return offerImage(t, "linuxkit/kernel:6.1", files, v1.Config{})
}

// bootedTheirs sees to it that a guest runs the kernel that came out of an image.
func (w home) bootedTheirs(t *testing.T, vm string) {
	t.Helper()
	var k struct{ Digest, Source, Release string }
	if err := json.Unmarshal([]byte(w.must(t, "kernel", "show", "theirs")), &k); err != nil {
		t.Fatal(err)
	}
	var v struct {
		Spec        struct{ Kernel string }
		GuestKernel string `json:"guest_kernel"`
	}
	if err := json.Unmarshal([]byte(w.must(t, "vm", "show", vm)), &v); err != nil {
		t.Fatal(err)
	}
	if v.Spec.Kernel != k.Digest || v.GuestKernel != k.Release || !strings.Contains(k.Source, "/linuxkit/kernel:6.1@sha256:") {
		t.Errorf("the guest is %+v, the kernel %+v", v, k)
	}
}

// killCommit kills the daemon while it makes an image of a VM, and says whether
// the next one leaves both as they were.
func (w home) killCommit(t *testing.T, vm, name string) {
	t.Helper()
	var daemon struct {
		PID int `json:"pid"`
	}
	if err := json.Unmarshal([]byte(w.must(t, "daemon", "status", "--json")), &daemon); err != nil {
		t.Fatal(err)
	}
	commit := w.Command("image", "commit", vm, name)
	stages, err := commit.StderrPipe()
	if err == nil {
		err = commit.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stages)
	for lines.Scan() && !strings.HasSuffix(lines.Text(), "wait for guest") {
	}
	// Its guest has its boot before it, and the daemon may not have heard of its VMM yet.
	var was shown
	eventually(t, "the VM has a VMM", func() bool { was = w.show(t, vm); return was.VMMPID != 0 })
	if was.State != "stopped" || w.Banger("exec", vm, "--", "/hello").Status == 0 {
		t.Errorf("amid a commit the VM is %s, and to be reached", was.State)
	}
	kill(t, daemon.PID)
	_, _ = io.Copy(io.Discard, stages)
	if err := commit.Wait(); err == nil {
		t.Fatal("the image was made before the daemon was killed")
	}
	if now := w.show(t, vm); now.State != "stopped" || now.LastError != "" {
		t.Errorf("after a kill amid a commit the VM is %+v", now)
	}
	eventually(t, "shim and VMM end", func() bool { return !alive(was.VMMPID) && !alive(was.ShimPID) })
	if got := w.must(t, "image", "list", "-q"); strings.Contains(got, name) {
		t.Errorf("half an image is listed: %s", got)
	}
}

// An image with nothing in it but one program: no shell, no libc, no /etc.
func TestAnImageOfOneProgramRunsAndWhatBecameOfItIsAnImage(t *testing.T) {
	t.Parallel()
	w := borrowedWorld(t, "tiny")
	ref := serveImage(t, staticProgram(t, hello))
	want := func(r world.Result, stdout string) {
		t.Helper()
		if r.Status != 0 || r.Stdout != stdout {
			t.Fatalf("status %d, stdout %q instead of %q, stderr:\n%s", r.Status, r.Stdout, stdout, r.Stderr)
		}
	}
	want(w.Banger("kernel", "pull", w.serveKernel(t), "--name", "theirs"), "theirs\n")
	want(w.Banger("image", "pull", ref, "--name", "tiny", "--user", "image", "--kernel-ref", "theirs"), "tiny\n")
	want(w.Banger("run", "--name", "box", "--cold", "--image", "tiny", "--", "/hello", "a", "b"), "/ hi 1234  [a b]\n")
	w.bootedTheirs(t, "box")
	note := filepath.Join(w.Home, "note")
	if err := os.WriteFile(note, []byte("from before\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	want(w.Banger("cp", note, "box:/note"), "")
	want(w.Banger("cp", note, "box:/tmp/gone"), "")
	// A repository becomes that of whom commands are run as.
	want(w.Banger("vm", "workspace", "prepare", "box", repository(t, "echo one >file; git add -A; git commit -qm one")), "")
	want(w.Banger("exec", "box", "--", "/hello"), "/repo hi 1234 from before []\n")
	want(w.Banger("stop", "box"), "box\n")
	w.killCommit(t, "box", "more")
	r := w.Banger("image", "commit", "box", "more")
	want(r, "more\n")
	for _, out := range []string{"/tmp", "/etc/machine-id"} {
		if !strings.Contains(r.Stderr, out) {
			t.Errorf("commit does not say that %s was left out:\n%s", out, r.Stderr)
		}
	}
	pack := filepath.Join(w.Home, "more.tar.zst")
	want(w.Banger("image", "export", "more", "-o", pack), pack+"\n")
	other := borrowedWorld(t, "other")
	want(other.Banger("image", "import", pack, "--name", "theirs"), "theirs\n")
	want(other.Banger("run", "--rm", "--cold", "--image", "theirs", "--", "/hello"), "/ hi 1234 from before []\n")
	t.Run("with a work seed", func(t *testing.T) { other.fillsHome(t, "theirs") })
}

// fillsHome says whether VMs of an image, to which a work seed is given, have that
// in /root, and keep what becomes of it.
func (w home) fillsHome(t *testing.T, of string) {
	t.Helper()
	tree, seed := filepath.Join(w.Home, "tree"), filepath.Join(w.Home, "seed.ext4")
	if err := os.MkdirAll(filepath.Join(tree, "deep/er"), 0o755); err != nil {
		t.Fatal(err)
	}
	notes := filepath.Join(tree, "deep/er/notes")
	if err := os.WriteFile(notes, []byte("of the seed"), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, "mkfs.ext4", "-q", "-d", tree, seed, "8M")
	var image struct {
		Rootfs string `json:"rootfs_path"`
	}
	if err := json.Unmarshal([]byte(w.must(t, "image", "show", of)), &image); err != nil {
		t.Fatal(err)
	}
	w.must(t, "image", "register", "--name", "seeded", "--rootfs", image.Rootfs, "--work-seed", seed)
	w.must(t, "vm", "create", "--name", "seeded", "--cold", "--image", "seeded")
	now := func() string {
		copied := filepath.Join(w.Home, "copied")
		w.must(t, "cp", "seeded:/root/deep/er/notes", copied)
		text, err := os.ReadFile(copied)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if got := now(); got != "of the seed" {
		t.Errorf("it holds %q at first", got)
	}
	if err := os.WriteFile(notes, []byte("of the VM"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.must(t, "cp", notes, "seeded:/root/deep/er/notes")
	w.must(t, "restart", "seeded")
	if got := now(); got != "of the VM" {
		t.Errorf("it holds %q at its second boot", got)
	}
}
