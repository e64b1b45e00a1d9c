package daemon_test

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/api"
	"banger/internal/ext4"
)

func smallRootfs(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	must(t, w.WriteHeader(&tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}))
	must(t, w.Close())
	path := filepath.Join(t.TempDir(), "rootfs.ext4")
	must(t, ext4.FromTar(t.Context(), &b, path, ext4.Options{Unique: true}))
	return path
}

func TestAnImageGoesFromAFileToAPackAndBack(t *testing.T) {
	h := open(t, &fakeVMs{})
	path := smallRootfs(t)
	mine, err := h.client.RegisterImage(t.Context(), api.RegisterImage{Name: "mine", Rootfs: path}, nil)
	if err != nil || mine.Managed || mine.RootfsPath != path || !strings.HasPrefix(mine.Digest, "sha256:") {
		t.Fatalf("%+v %v", mine, err)
	}
	if _, err := h.client.RegisterImage(t.Context(), api.RegisterImage{Name: "mine", Rootfs: path}, nil); banger.CodeOf(err) != banger.AlreadyExists {
		t.Errorf("registered again: %v", err)
	}
	promoted, err := h.client.PromoteImage(t.Context(), "mine", nil)
	if err != nil || !promoted.Managed || promoted.RootfsPath == path || promoted.Digest != mine.Digest {
		t.Fatalf("%+v %v", promoted, err)
	}
	if _, err := h.client.PromoteImage(t.Context(), "mine", nil); banger.CodeOf(err) != banger.Conflict {
		t.Errorf("promoted again: %v", err)
	}
	// As after a crash between the record and the row.
	row, err := h.vms.store.Image(t.Context(), mine.ID)
	must(t, err)
	row.Managed, row.RootfsPath = false, path
	must(t, h.vms.store.UpsertImage(t.Context(), row))
	if again, err := h.client.PromoteImage(t.Context(), "mine", nil); err != nil || again.RootfsPath != promoted.RootfsPath || !again.Managed {
		t.Errorf("finished: %+v %v", again, err)
	}
	renamed, err := h.client.RenameImage(t.Context(), "mine", "ours")
	if err != nil || renamed.Name != "ours" || renamed.ID != mine.ID {
		t.Fatalf("%+v %v", renamed, err)
	}
	pack := filepath.Join(t.TempDir(), "ours.tar.zst")
	if _, err := h.client.ExportImage(t.Context(), "ours", api.ExportImage{Path: pack}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := h.client.ImportImage(t.Context(), api.ImportImage{Path: pack}, nil); banger.CodeOf(err) != banger.AlreadyExists {
		t.Errorf("imported under its own name: %v", err)
	}
	must(t, h.client.DeleteImage(t.Context(), "ours"))
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	got, err := h.client.ImportImage(t.Context(), api.ImportImage{Path: pack}, nil)
	if err != nil || got.Name != "ours" || got.Digest != mine.Digest {
		t.Fatalf("%+v %v", got, err)
	}
	if got.WorkSeedPath != "" || mine.WorkSeedDigest != "" {
		t.Errorf("it has a work seed: %+v", got)
	}
	other, err := h.client.ImportImage(t.Context(), api.ImportImage{Path: pack, Name: "other"}, nil)
	if err != nil || other.ID == got.ID {
		t.Fatalf("%+v %v", other, err)
	}
	if _, err := h.client.RenameImage(t.Context(), "other", "ours"); banger.CodeOf(err) != banger.AlreadyExists {
		t.Errorf("two of one name: %v", err)
	}
}

// A daemon that was killed between the record and the row.
func TestAPromotionThatWasCutOffIsFinishedWhenTheDaemonStarts(t *testing.T) {
	h := open(t, &fakeVMs{})
	path := smallRootfs(t)
	_, err := h.client.RegisterImage(t.Context(), api.RegisterImage{Name: "mine", Rootfs: path}, nil)
	must(t, err)
	before, err := h.vms.store.ImageByName(t.Context(), "mine")
	must(t, err)
	promoted, err := h.client.PromoteImage(t.Context(), "mine", nil)
	must(t, err)
	must(t, h.vms.store.UpsertImage(t.Context(), before))
	must(t, h.stop())
	must(t, os.Remove(path)) // nobody needs it any more
	again := openAt(t, h.dirs, &fakeVMs{})
	if got, err := again.client.Image(t.Context(), "mine"); err != nil || !got.Managed || got.RootfsPath != promoted.RootfsPath {
		t.Errorf("%+v %v, want %+v", got, err, promoted)
	}
}

func TestAWorkSeedGoesWhereItsImageGoes(t *testing.T) {
	h := open(t, &fakeVMs{})
	path, seed := smallRootfs(t), smallRootfs(t)
	if _, err := h.client.RegisterImage(t.Context(), api.RegisterImage{Name: "mine", Rootfs: path, WorkSeed: "seed.ext4"}, nil); banger.CodeOf(err) != banger.BadRequest {
		t.Errorf("of a relative path: %v", err)
	}
	mine, err := h.client.RegisterImage(t.Context(), api.RegisterImage{Name: "mine", Rootfs: path, WorkSeed: seed}, nil)
	if err != nil || mine.WorkSeedPath != seed || !strings.HasPrefix(mine.WorkSeedDigest, "sha256:") || mine.WorkSeedBytes == 0 {
		t.Fatalf("%+v %v", mine, err)
	}
	promoted, err := h.client.PromoteImage(t.Context(), "mine", nil)
	if err != nil || promoted.WorkSeedPath == seed || promoted.WorkSeedDigest != mine.WorkSeedDigest {
		t.Fatalf("%+v %v", promoted, err)
	}
	row, err := h.vms.store.Image(t.Context(), mine.ID)
	if err != nil || row.WorkSeedPath != promoted.WorkSeedPath {
		t.Errorf("%+v %v", row, err)
	}
	pack := filepath.Join(t.TempDir(), "mine.tar.zst")
	if _, err := h.client.ExportImage(t.Context(), "mine", api.ExportImage{Path: pack}, nil); err != nil {
		t.Fatal(err)
	}
	other, err := h.client.ImportImage(t.Context(), api.ImportImage{Path: pack, Name: "other"}, nil)
	if err != nil || other.WorkSeedDigest != mine.WorkSeedDigest || other.WorkSeedPath == promoted.WorkSeedPath {
		t.Fatalf("%+v %v", other, err)
	}
	must(t, h.client.DeleteImage(t.Context(), "mine"))
	must(t, h.client.DeleteImage(t.Context(), "other"))
	if _, err := os.Stat(seed); err != nil {
		t.Error(err)
	}
}
