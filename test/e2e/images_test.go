package e2e

import (
	"archive/tar"
	"bytes"
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
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{Name: "hello", Mode: 0o755, Size: int64(len(program))})
	if err == nil {
		_, err = w.Write(program)
	}
	if err == nil {
		err = w.Close()
	}
	var layer v1.Layer
	if err == nil {
		layer, err = tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	}
	img := empty.Image
	if err == nil {
		img, err = mutate.AppendLayers(img, layer)
	}
	if err == nil {
		c, _ := img.ConfigFile()
		c = c.DeepCopy()
		c.OS, c.Architecture = "linux", "amd64"
		c.Config = v1.Config{Env: []string{"GREETING=hi"}, WorkingDir: "/", User: "1234", Entrypoint: []string{"/hello"}}
		img, err = mutate.ConfigFile(img, c)
	}
	ref = strings.TrimPrefix(server.URL, "http://") + "/tiny:1"
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

// An image with nothing in it but one program: no shell, no libc, no /etc.
func TestAnImageOfOneProgramRunsAndWhatBecameOfItIsAnImage(t *testing.T) {
	w := borrowedWorld(t, "tiny")
	ref := serveImage(t, staticProgram(t, hello))
	want := func(r world.Result, stdout string) {
		t.Helper()
		if r.Status != 0 || r.Stdout != stdout {
			t.Fatalf("status %d, stdout %q instead of %q, stderr:\n%s", r.Status, r.Stdout, stdout, r.Stderr)
		}
	}
	want(w.Banger("image", "pull", ref, "--name", "tiny", "--user", "image"), "tiny\n")
	want(w.Banger("run", "--name", "box", "--cold", "--image", "tiny", "--", "/hello", "a", "b"), "/ hi 1234  [a b]\n")
	note := filepath.Join(w.Home, "note")
	if err := os.WriteFile(note, []byte("from before\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	want(w.Banger("cp", note, "box:/note"), "")
	want(w.Banger("cp", note, "box:/tmp/gone"), "")
	want(w.Banger("stop", "box"), "box\n")
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
}
