package daemon_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"banger"
	"banger/internal/api"
	"banger/internal/image"
	"banger/internal/vm"
)

// plant puts a built image where the builder finds it.
func plant(t *testing.T, h *house) string {
	t.Helper()
	id := banger.NewID()
	dir := h.dirs.Image(id)
	must(t, os.MkdirAll(dir, 0o700))
	record, err := json.Marshal(image.Record{ID: id, Name: banger.DefaultImage, Digest: strings.Repeat("a", 64), Source: "the test", SizeBytes: 7})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "image.json"), record, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "rootfs.ext4"), []byte("rootfs\n"), 0o600))
	return id
}

func TestPullsOfOneImageGiveTheSame(t *testing.T) {
	h := open(t, &fakeVMs{})
	id := plant(t, h)
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			got, err := h.client.PullImage(t.Context(), api.PullImage{Ref: banger.DefaultImage}, nil)
			if err != nil || got.ID != id || got.Digest != "sha256:"+strings.Repeat("a", 64) || got.SizeBytes != 7 {
				t.Errorf("got %+v %v", got, err)
			}
		})
	}
	wait.Wait()
	if all, err := h.client.Images(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("images: %v %v", all, err)
	}
	_, err := h.client.PullImage(t.Context(), api.PullImage{Ref: "No Reference"}, nil)
	if banger.CodeOf(err) != banger.BadRequest {
		t.Errorf("what is no reference: %v", err)
	}
}

func TestAnImageInUseStaysAndAFreeOneGoesWithItsFiles(t *testing.T) {
	h := open(t, &fakeVMs{})
	id := plant(t, h)
	_, err := h.client.PullImage(t.Context(), api.PullImage{Ref: banger.DefaultImage}, nil)
	must(t, err)
	for _, name := range []string{"one", "two"} {
		_, err := h.vms.store.ReserveVM(t.Context(), banger.VM{ID: banger.NewID(), Name: name, ImageID: id}, "10.77.0.0/16")
		must(t, err)
	}
	err = h.client.DeleteImage(t.Context(), "debian")
	if banger.CodeOf(err) != banger.Conflict || !strings.Contains(err.Error(), "one, two") {
		t.Errorf("deleting it: %v", err)
	}
	_, err = h.client.PullImage(t.Context(), api.PullImage{Ref: banger.DefaultImage, Force: true}, nil)
	if banger.CodeOf(err) != banger.Conflict || !strings.Contains(err.Error(), "one, two") {
		t.Errorf("building it again: %v", err)
	}
	if shown, err := h.client.Image(t.Context(), id[:10]); err != nil || strings.Join(shown.UsedBy, " ") != "one two" {
		t.Errorf("shown as %+v %v", shown, err)
	}
	for _, name := range []string{"one", "two"} {
		must(t, h.client.DeleteVM(t.Context(), name, false))
		must(t, h.client.DeleteVM(t.Context(), name, false)) // again is no error
	}
	must(t, h.client.DeleteImage(t.Context(), banger.DefaultImage))
	// Names with a dot are the builder's locks.
	if left, err := filepath.Glob(h.dirs.State + "/*/[^.]*"); err != nil || len(left) != 0 {
		t.Errorf("left behind: %q %v", left, err)
	}
}

func TestTheUsersOwnImageFilesStay(t *testing.T) {
	h := open(t, &fakeVMs{})
	file := filepath.Join(t.TempDir(), "rootfs.ext4")
	must(t, os.WriteFile(file, nil, 0o600))
	mine := banger.Image{ID: banger.NewID(), Name: "mine", RootfsPath: file, ArtifactDir: filepath.Dir(file)}
	must(t, h.vms.store.UpsertImage(t.Context(), mine))
	must(t, h.client.DeleteImage(t.Context(), "mine"))
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func TestWhatIsAvailableIsListedOnlyWhenAsked(t *testing.T) {
	h := open(t, &fakeVMs{})
	if all, err := h.client.Kernels(t.Context(), false); err != nil || len(all) != 0 {
		t.Errorf("installed: %v %v", all, err)
	}
	all, err := h.client.Kernels(t.Context(), true)
	if err != nil || len(all) != 1 || all[0].Name != banger.DefaultKernel || all[0].State != "available" {
		t.Errorf("available: %+v %v", all, err)
	}
}

func TestReferencesFollowTheRules(t *testing.T) {
	h := open(t, &fakeVMs{})
	ids := map[string]string{}
	for _, name := range []string{"box", "box-2", "other"} {
		made, err := h.client.CreateVM(t.Context(), api.CreateVM{Name: name}, nil)
		must(t, err)
		ids[name] = made.ID
	}
	for ref, want := range map[string]string{"box": "box", "oth": "other", ids["box-2"]: "box-2", ids["other"][:20]: "other"} {
		if got, err := h.client.VM(t.Context(), ref); err != nil || got.Name != want {
			t.Errorf("%s: %s %v", ref, got.Name, err)
		}
	}
	for ref, want := range map[string]banger.Code{
		"bo": banger.Conflict, "x y/../z": banger.NotFound, ".": banger.NotFound, "..": banger.NotFound,
		"": banger.BadRequest, "%2e": banger.NotFound, "box?force=true": banger.NotFound, banger.NewID(): banger.NotFound,
	} {
		if _, err := h.client.VM(t.Context(), ref); banger.CodeOf(err) != want {
			t.Errorf("%q: %v, want %s", ref, err, want)
		}
	}
	if _, err := h.client.ChangeVM(t.Context(), "box", api.ChangeVM{Ephemeral: new(true)}); banger.CodeOf(err) != banger.BadRequest {
		t.Errorf("making it ephemeral: %v", err)
	}
	if err := h.client.DeleteVM(t.Context(), "bo", true); banger.CodeOf(err) != banger.Conflict {
		t.Errorf("deleting an ambiguous one: %v", err)
	}
}

func TestSettingsAreShownWithTheirOriginAndAWrongFileIsNamed(t *testing.T) {
	h := open(t, &fakeVMs{create: func(context.Context, vm.Create, vm.Progress) error { return nil }})
	must(t, os.MkdirAll(h.dirs.Config, 0o700))
	must(t, os.WriteFile(h.dirs.ConfigFile(), []byte("log_level = \"warn\"\nbridge_name = \"br0\"\n"), 0o600))
	c, err := h.client.Config(t.Context())
	if err != nil || len(c.Warnings) != 1 || len(c.Settings) < 10 || c.File != h.dirs.ConfigFile() {
		t.Fatalf("%+v %v", c, err)
	}
	must(t, os.WriteFile(h.dirs.ConfigFile(), []byte("log_level = 7\n"), 0o600))
	if _, err := h.client.Config(t.Context()); banger.CodeOf(err) != banger.Conflict || !strings.Contains(err.Error(), "log_level") {
		t.Errorf("a wrong file: %v", err)
	}
}

// plantKernel puts a kernel into the store whose digest is that digit all over.
func plantKernel(t *testing.T, h *house, name, digit string) (digest string) {
	t.Helper()
	digest = strings.Repeat(digit, 64)
	kernels := h.dirs.Kernels()
	entry := filepath.Join(kernels, "by-digest", digest)
	must(t, os.MkdirAll(entry, 0o700))
	must(t, os.WriteFile(filepath.Join(entry, "kernel.json"), []byte(`{"name":"`+name+`","arch":"amd64"}`), 0o600))
	must(t, os.MkdirAll(filepath.Join(kernels, "names"), 0o700))
	must(t, os.Symlink("../by-digest/"+digest, filepath.Join(kernels, "names", name)))
	return digest
}

func TestAKernelStaysWhileAnImageBootsIt(t *testing.T) {
	h := open(t, &fakeVMs{})
	digest := plantKernel(t, h, "mine", "c")
	id := banger.NewID()
	dir := h.dirs.Image(id)
	must(t, os.MkdirAll(dir, 0o700))
	record, err := json.Marshal(image.Record{ID: id, Name: "own", Digest: strings.Repeat("a", 64), Kernel: digest})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "image.json"), record, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "rootfs.ext4"), nil, 0o600))
	must(t, h.vms.store.UpsertImage(t.Context(), banger.Image{
		ID: id, Name: "renamed", Managed: true, ArtifactDir: dir, RootfsPath: filepath.Join(dir, "rootfs.ext4"),
	}))

	err = h.client.DeleteKernel(t.Context(), "mine")
	if hints := banger.HintsOf(err); banger.CodeOf(err) != banger.Conflict || !strings.Contains(err.Error(), "the image renamed") ||
		len(hints) != 1 || hints[0] != "banger image delete renamed" {
		t.Errorf("deleting it: %v %q", err, banger.HintsOf(err))
	}
	if k, err := h.client.Kernel(t.Context(), "mine"); err != nil || strings.Join(k.UsedBy, ",") != "image renamed" {
		t.Errorf("shown as %+v %v", k, err)
	}
	must(t, h.client.DeleteImage(t.Context(), "renamed"))
	must(t, h.client.DeleteKernel(t.Context(), "mine"))
}

func TestTheNameOfAKernelThatIsGoneCanBeDeleted(t *testing.T) {
	h := open(t, &fakeVMs{})
	digest := plantKernel(t, h, "mine", "c")
	must(t, os.RemoveAll(filepath.Join(h.dirs.Kernels(), "by-digest", digest)))
	if all, err := h.client.Kernels(t.Context(), false); err != nil || len(all) != 0 {
		t.Errorf("listed: %+v %v", all, err)
	}
	must(t, h.client.DeleteKernel(t.Context(), "mine"))
	if err := h.client.DeleteKernel(t.Context(), "mine"); banger.CodeOf(err) != banger.NotFound {
		t.Errorf("deleted again: %v", err)
	}
}

func TestAnImageThatLostItsRowIsTakenUpAgainByItsNameOrAnother(t *testing.T) {
	h := open(t, &fakeVMs{})
	path := smallRootfs(t)
	mine, err := h.client.RegisterImage(t.Context(), api.RegisterImage{Name: "redis", Rootfs: path}, nil)
	must(t, err)
	mine, err = h.client.PromoteImage(t.Context(), "redis", nil)
	must(t, err)
	first, second := plant(t, h), plant(t, h)
	must(t, h.vms.store.DeleteImage(t.Context(), mine.ID))
	must(t, h.stop())
	again := openAt(t, h.dirs, &fakeVMs{})
	got, err := again.client.Image(t.Context(), "redis")
	if err != nil || got.ID != mine.ID || got.RootfsPath != mine.RootfsPath || !got.Managed {
		t.Errorf("%+v %v, was %+v", got, err, mine)
	}
	got, err = again.client.Image(t.Context(), banger.DefaultImage)
	if err != nil || got.ID != first && got.ID != second {
		t.Errorf("%+v %v", got, err)
	}
	other := strings.TrimSuffix(first+second, got.ID)
	other = strings.TrimPrefix(other, got.ID)
	if row, err := again.client.Image(t.Context(), other); err != nil || row.Name != banger.DefaultImage+"-"+banger.ShortID(other) {
		t.Errorf("the other of the same name: %+v %v", row, err)
	}
	must(t, again.client.DeleteImage(t.Context(), other))
	if _, err := os.Stat(again.dirs.Image(got.ID)); err != nil {
		t.Error(err)
	}
}
