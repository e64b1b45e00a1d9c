package daemon

import (
	"path/filepath"
	"testing"

	"banger"
	"banger/internal/paths"
	"banger/internal/store"
)

func TestRenamedImageKeepsWhatChangedMeanwhile(t *testing.T) {
	dir := t.TempDir()
	db, err := store.Open(t.Context(), filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	stale := banger.Image{ID: banger.NewID(), Name: "mine", RootfsPath: "/before"}
	now := stale
	now.RootfsPath = "/promoted"
	if err := db.UpsertImage(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	i := &images{store: db, dirs: paths.Dirs{State: dir}}
	if _, err := i.rename(t.Context(), stale, "ours"); err != nil {
		t.Fatal(err)
	}
	if got, err := db.ImageByName(t.Context(), "ours"); err != nil || got.RootfsPath != "/promoted" {
		t.Errorf("there is %+v, %v", got, err)
	}
}
