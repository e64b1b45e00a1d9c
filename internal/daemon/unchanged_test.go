package daemon

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/ext4"
	"banger/internal/image"
	"banger/internal/paths"
	"banger/internal/store"
)

func TestNoVMStartsFromAFileThatHasChanged(t *testing.T) {
	dirs := paths.Dirs{State: t.TempDir(), Cache: t.TempDir()}
	rows, err := store.Open(t.Context(), dirs.Database())
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	i := &images{store: rows, builder: image.Builder{Dir: dirs.Images()}, dirs: dirs}
	var b bytes.Buffer
	if err := tar.NewWriter(&b).Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "rootfs.ext4")
	if err := ext4.FromTar(t.Context(), &b, path, ext4.Options{Unique: true}); err != nil {
		t.Fatal(err)
	}
	row, err := i.add(t.Context(), "mine", func() (banger.Image, error) {
		return i.builder.Register(t.Context(), "mine", path, "", func(string) {})
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := i.Image(t.Context(), row.ID); err != nil || got.Digest == "" || got.RootfsPath != path {
		t.Errorf("unchanged: %+v %v", got, err)
	}
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(path, later, later); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Image(t.Context(), row.ID); banger.CodeOf(err) != banger.Conflict || !strings.Contains(err.Error(), "has changed") {
		t.Errorf("changed: %v", err)
	}
}

func TestADeletionDuringAPullIsRefused(t *testing.T) {
	i := &images{}
	done, err := i.names.take(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if err := i.delete(t.Context(), banger.Image{Name: "x"}); banger.CodeOf(err) != banger.Busy {
		t.Error(err)
	}
	done()
	if free, _ := i.names.try("x"); free == nil {
		t.Error("the turn was not given back")
	}
}
