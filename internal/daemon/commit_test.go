package daemon

import (
	"archive/tar"
	"bytes"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"

	"banger"
	"banger/internal/config"
	"banger/internal/ext4"
	"banger/internal/image"
	"banger/internal/paths"
	"banger/internal/store"
)

// A secret stays out although the configuration has forgotten it.
func TestAnImageLeavesOutWhatWasSyncedThenAndNow(t *testing.T) {
	d := &daemon{config: func() (config.Config, []config.Warning, error) {
		return config.Config{FileSync: []config.FileSync{{Guest: "/root/.now"}, {Guest: "/root/.both"}}}, nil, nil
	}}
	row := banger.VM{Spec: banger.Spec{Synced: []string{"/root/.then", "/root/.both"}}, Workspace: banger.Workspace{GuestPath: "/root/repo/"}}
	out, err := d.without(row, false)
	if want := append(slices.Clone(ownOfVM), "/root/.then", "/root/.both", "/root/.now", "/root/repo"); err != nil || !slices.Equal(out, want) {
		t.Errorf("%q, %v", out, err)
	}
	if out, err := d.without(row, true); err != nil || slices.Contains(out, "/root/repo") {
		t.Errorf("with the workspace: %q, %v", out, err)
	}
}

// openImages is the images of an empty state directory.
func openImages(t *testing.T) *images {
	t.Helper()
	dirs := paths.Dirs{State: t.TempDir(), Cache: t.TempDir()}
	rows, err := store.Open(t.Context(), dirs.Database())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rows.Close() })
	return &images{store: rows, builder: image.Builder{Dir: dirs.Images()}, dirs: dirs}
}

// emptyRootfs is an ext4 file with nothing in it.
func emptyRootfs(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	if err := tar.NewWriter(&b).Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "rootfs.ext4")
	if err := ext4.FromTar(t.Context(), &b, path, ext4.Options{Unique: true}); err != nil {
		t.Fatal(err)
	}
	return path
}

// As of a commit that is cancelled while the VM is stopped again.
func TestAnImageThatCameWithAnErrorIsNoImageToTheNextDaemon(t *testing.T) {
	i := openImages(t)
	path, late := emptyRootfs(t), errors.New("too late")
	_, err := i.add(t.Context(), "mine", func() (banger.Image, error) {
		made, err := i.builder.Register(t.Context(), image.Registration{Name: "mine", Rootfs: path}, func(string) {})
		return made, errors.Join(err, late)
	})
	if !errors.Is(err, late) {
		t.Error(err)
	}
	if err := i.takeUp(t.Context(), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if rows, err := i.store.Images(t.Context()); err != nil || len(rows) > 0 {
		t.Errorf("there is %+v, %v", rows, err)
	}
}
