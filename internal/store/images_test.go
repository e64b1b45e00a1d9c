package store

import (
	"testing"
	"time"

	"banger"
)

func TestImageSurvivesARoundTrip(t *testing.T) {
	s := mustOpen(t, newPath(t))
	image := banger.Image{
		ID: "i1", Name: "debian", Managed: true, ArtifactDir: "/a", RootfsPath: "/a/r", WorkSeedPath: "/a/w", KernelPath: "/k",
		InitrdPath: "/i", ModulesDir: "/m", BuildSize: "2G", SeededSSHKeyFingerprint: "SHA256:x",
		CreatedAt: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
	}
	must(t, s.UpsertImage(t.Context(), image))
	changed := image
	changed.CreatedAt = time.Now()
	changed.BuildSize, changed.Managed = "", false
	must(t, s.UpsertImage(t.Context(), changed))
	got, err := s.ImageByName(t.Context(), "debian")
	must(t, err)
	changed.CreatedAt, changed.UpdatedAt = image.CreatedAt, got.UpdatedAt
	if got != changed || got.UpdatedAt.IsZero() {
		t.Errorf("wrote\n%+v\nread\n%+v", changed, got)
	}
	all, err := s.Images(t.Context())
	must(t, err)
	if len(all) != 1 || all[0] != got {
		t.Errorf("listed %+v", all)
	}
}

func TestTakenImageNameAlreadyExists(t *testing.T) {
	s := mustOpenWithImage(t)
	err := s.UpsertImage(t.Context(), banger.Image{ID: "i2", Name: "debian", RootfsPath: "/r"})
	wantError(t, err, banger.AlreadyExists, "there is an image debian already")
}

func TestDeleteKeepsImageInUse(t *testing.T) {
	s := mustOpenWithImage(t)
	vm := mustReserve(t, s, "devbox")
	using, err := s.VMsUsingImage(t.Context(), "i1")
	must(t, err)
	if names(using) != "devbox" {
		t.Errorf("used by %q", names(using))
	}
	wantError(t, s.DeleteImage(t.Context(), "i1"), banger.Conflict, "a VM uses it")
	must(t, s.DeleteVM(t.Context(), vm.ID))
	for range 2 {
		must(t, s.DeleteImage(t.Context(), "i1"))
	}
	_, err = s.Image(t.Context(), "i1")
	wantError(t, err, banger.NotFound, "cannot find image i1")
	_, err = s.ImageByName(t.Context(), "debian")
	wantError(t, err, banger.NotFound)
}
