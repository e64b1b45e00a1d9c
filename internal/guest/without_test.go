package guest

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"banger/internal/guestwire"
)

func TestPackLeavesOutWhatItIsToldTo(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"tmp/deep", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"tmp/a", "tmp/deep/b", "etc/machine-id", "etc/passwd"} {
		if err := os.WriteFile(filepath.Join(root, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	err := pack(guestwire.Copy{Path: root, Name: ".", OneSystem: true, Without: []string{root + "/tmp", root + "/etc/machine-id"}}, &out)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for in := tar.NewReader(&out); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	if want := []string{"./", "etc/", "etc/passwd", "tmp/"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
}

func TestPackStaysOnOneFileSystem(t *testing.T) {
	var out bytes.Buffer
	p := &packer{out: tar.NewWriter(&out), only: true}
	root, err := os.Lstat("/")
	if err != nil {
		t.Fatal(err)
	}
	proc, err := os.Lstat("/proc")
	if err != nil {
		t.Skip("there is no /proc")
	}
	p.system = sysStat(root).Dev
	if p.leaves("/", root) || !p.leaves("/proc", proc) {
		t.Error("what is mounted below is not told from what is there")
	}
}
