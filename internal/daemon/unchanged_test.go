package daemon

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/image"
)

func TestNoVMStartsFromAFileThatHasChanged(t *testing.T) {
	i, path := openImages(t), emptyRootfs(t)
	row, err := i.add(t.Context(), "mine", func() (banger.Image, error) {
		return i.builder.Register(t.Context(), image.Registration{Name: "mine", Rootfs: path}, func(string) {})
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
	pull := &operation{id: banger.NewID(), kind: "image.pull"}
	done, err := i.names.take(context.WithValue(t.Context(), operationKey{}, pull), "x")
	if err != nil {
		t.Fatal(err)
	}
	err = i.delete(t.Context(), banger.Image{Name: "x"})
	if banger.CodeOf(err) != banger.Busy || !strings.Contains(err.Error(), "it is used by the operation image.pull ("+banger.ShortID(pull.id)+")") {
		t.Error(err)
	}
	done()
	if free, _ := i.names.try("x", ""); free == nil {
		t.Error("the turn was not given back")
	}
}

func TestAllThatIsRecordedOfAnImageIsShown(t *testing.T) {
	got := shownImage(banger.Image{ArtifactDir: "/a", KernelPath: "/k", InitrdPath: "/i", ModulesDir: "/m", WorkSeedPath: "/s"}, nil)
	if got.ArtifactDir != "/a" || got.KernelPath != "/k" || got.InitrdPath != "/i" || got.ModulesDir != "/m" || got.WorkSeedPath != "/s" {
		t.Errorf("got %+v", got)
	}
}
