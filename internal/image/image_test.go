package image

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger"
	"banger/internal/artifact"
)

// mustImage lays out an image as a build leaves it.
func mustImage(t *testing.T, root, name, content string) string {
	t.Helper()
	r := Record{ID: banger.NewID(), Name: name}
	dir := filepath.Join(root, r.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	rootfs := filepath.Join(dir, rootfsFile)
	if err := os.WriteFile(rootfs, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	r.Digest, _ = artifact.SHA256(context.Background(), rootfs)
	b, _ := json.Marshal(r)
	if err := os.WriteFile(filepath.Join(dir, recordFile), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestVerifyFindsASingleChangedByte(t *testing.T) {
	dir := mustImage(t, t.TempDir(), "x", "content")
	if err := Verify(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, rootfsFile), []byte("c0ntent"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := Verify(context.Background(), dir)
	if banger.CodeOf(err) != banger.Conflict || len(banger.HintsOf(err)) == 0 {
		t.Errorf("error %v", err)
	}
}

func TestLoadOfNoImageIsNotFound(t *testing.T) {
	if _, _, err := Load(t.TempDir()); banger.CodeOf(err) != banger.NotFound {
		t.Errorf("error %v", err)
	}
}

func TestBuildGivesTheImageThatIsThere(t *testing.T) {
	root := t.TempDir()
	dir := mustImage(t, root, banger.DefaultImage, "content")
	mustImage(t, root, "another", "content")
	img, err := Builder{Dir: root}.Build(context.Background(), banger.DefaultImage, banger.Access{}, nil)
	if err != nil || img.ArtifactDir != dir || !img.Managed || img.ID != filepath.Base(dir) {
		t.Errorf("%+v, %v", img, err)
	}
}

func TestBuildRefusesNamesItCannotMake(t *testing.T) {
	for name, want := range map[string]banger.Code{"no-such": banger.NotFound, "../x": banger.BadRequest} {
		if _, err := (Builder{Dir: t.TempDir()}).Build(context.Background(), name, banger.Access{}, nil); banger.CodeOf(err) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestScratchIsFoundAgainAfterACrash(t *testing.T) {
	dir := filepath.Join(t.TempDir(), ".build-x")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	scratch, err := makeScratch(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !passable(scratch) {
		t.Errorf("%s cannot be entered by everybody", scratch)
	}
	if err := os.MkdirAll(filepath.Join(scratch, "mmdebstrap.x", "etc"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := clearBuild(dir); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{scratch, dir} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
}

func TestClearBuildRemovesOnlyScratchOfItsOwnMaking(t *testing.T) {
	dir, precious := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, scratchNote), []byte(precious), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := clearBuild(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}

func TestPrivateDirectoryIsNotPassable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "private", "inner")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	if passable(dir) {
		t.Errorf("%s counts as passable", dir)
	}
}

func TestSubIDsAreFoundByNameOrNumber(t *testing.T) {
	file := filepath.Join(t.TempDir(), "subuid")
	if err := os.WriteFile(file, []byte("anna:100000:65536\n1007:165536:65536\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		u    user.User
		want bool
	}{
		{user.User{Username: "anna", Uid: "1000"}, true},
		{user.User{Username: "ben", Uid: "1007"}, true},
		{user.User{Username: "ann", Uid: "100000"}, false},
	} {
		if got := hasSubIDs(file, &c.u); got != c.want {
			t.Errorf("%s: %v", c.u.Username, got)
		}
	}
	if hasSubIDs(file+"-gone", &user.User{Username: "anna"}) {
		t.Error("a missing file has a range")
	}
}

func TestMessagesBecomeStagesAndErrors(t *testing.T) {
	var stages []string
	m := &messageWriter{progress: func(s string) { stages = append(stages, s) }}
	for _, part := range []string{"I: running apt-get up", "date...\nW: never mind\nI: creating tar", "ball...\nE: disk on fire\n", "E: setup failed: x\n"} {
		if n, err := m.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	if want := []string{"fetching package lists", "writing the file system"}; !slices.Equal(stages, want) {
		t.Errorf("stages %q", stages)
	}
	if got := m.tail(errors.New("exit status 1")); got != "disk on fire; setup failed: x" {
		t.Errorf("tail %q", got)
	}
	if _, err := m.Write([]byte(strings.Repeat("x", 3*maxMessages))); err != nil || len(m.kept) > maxMessages || len(m.line) > maxMessages {
		t.Errorf("it keeps %d and %d bytes", len(m.kept), len(m.line))
	}
}

func TestShellQuotingSurvivesQuotes(t *testing.T) {
	if got := shellQuoted("/a b/it's"); got != `'/a b/it'\''s'` {
		t.Error(got)
	}
}
