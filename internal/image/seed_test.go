package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
)

func sha256Of(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// mustSeed registers a file as image "mine" with another as its work seed.
func mustSeed(t testing.TB, b Builder) (img banger.Image, seed string) {
	t.Helper()
	seed = rootfsOf(t, file("notes", "of the seed", 0o600))
	img, err := b.Register(t.Context(), Registration{Name: "mine", Rootfs: rootfsOf(t, file("a", "1", 0o644)), Seed: seed}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return img, seed
}

func TestARegisteredSeedStaysWhereItIsAndMustNotChange(t *testing.T) {
	b := newBuilder(t)
	img, seed := mustSeed(t, b)
	dir := filepath.Join(b.Dir, img.ID)
	_, r, err := Load(dir)
	if err != nil || img.WorkSeedPath != seed || r.Seed == nil || r.Unchanged() != nil || Verify(t.Context(), dir) != nil {
		t.Fatalf("%+v %+v %v", img, r, err)
	}
	now := time.Now().Add(time.Hour)
	if err := os.Chtimes(seed, now, now); err != nil {
		t.Fatal(err)
	}
	if err := r.Unchanged(); banger.CodeOf(err) != banger.Conflict || !strings.Contains(err.Error(), seed+", has changed") {
		t.Errorf("after a change: %v", err)
	}
	if _, err := b.Promote(t.Context(), dir); banger.CodeOf(err) != banger.Conflict {
		t.Errorf("promoted after a change: %v", err)
	}
	flip(t, seed)
	if err := Verify(t.Context(), dir); banger.CodeOf(err) != banger.Conflict || !strings.Contains(err.Error(), seed) {
		t.Errorf("verified: %v", err)
	}
}

func TestTheHintOfAChangedFileCanBePasted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "with a space")
	root, seed := filepath.Join(dir, "root"), filepath.Join(dir, "seed")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{root, seed} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	is, err := look(root)
	if err != nil {
		t.Fatal(err)
	}
	was := Registered{Path: root}
	withSeed := &Seed{Registered: &Registered{Path: seed}}
	both := "--rootfs '" + root + "' --work-seed '" + seed + "'"
	for _, c := range []struct {
		rootfs Registered
		seed   *Seed
		want   string
	}{{was, nil, "--rootfs '" + root + "'"}, {was, withSeed, both}, {is, withSeed, both}} {
		r := Record{Name: "mine", Source: root, Registered: &c.rootfs, Seed: c.seed}
		if got := banger.HintsOf(r.Unchanged()); len(got) != 1 || got[0] != "banger image register --name OTHER "+c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestWhatIsNoSoundExt4IsNoSeed(t *testing.T) {
	b, rootfs, seed := newBuilder(t), rootfsOf(t, file("a", "1", 0o644)), rootfsOf(t, file("b", "2", 0o644))
	content, err := os.ReadFile(seed)
	if err != nil {
		t.Fatal(err)
	}
	content[1024+0x3a] = 0 // was not unmounted
	if err := os.WriteFile(seed, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		seed: "a dirty ext4", t.TempDir(): "no regular file", filepath.Join(t.TempDir(), "gone"): "no such file",
	} {
		_, err := b.Register(t.Context(), Registration{Name: "mine", Rootfs: rootfs, Seed: path}, quiet)
		if banger.CodeOf(err) != banger.BadRequest || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if left, _ := filepath.Glob(b.Dir + "/*"); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func TestAPromotedImageHasItsSeed(t *testing.T) {
	b := newBuilder(t)
	img, seed := mustSeed(t, b)
	promoted, err := b.Promote(t.Context(), img.ArtifactDir)
	if err != nil || promoted.WorkSeedPath != filepath.Join(b.Dir, img.ID, seedFile) {
		t.Fatalf("%+v %v", promoted, err)
	}
	os.Remove(seed)
	if err := Verify(t.Context(), promoted.ArtifactDir); err != nil {
		t.Error(err)
	}
	flip(t, promoted.WorkSeedPath)
	if err := Verify(t.Context(), promoted.ArtifactDir); banger.CodeOf(err) != banger.Conflict {
		t.Errorf("a flipped byte: %v", err)
	}
	if err := Export(t.Context(), promoted.ArtifactDir, filepath.Join(t.TempDir(), "x")); banger.CodeOf(err) != banger.Conflict {
		t.Errorf("exported: %v", err)
	}
}

func TestAPackCarriesTheSeed(t *testing.T) {
	b := newBuilder(t)
	img, seed := mustSeed(t, b)
	packed := filepath.Join(t.TempDir(), "mine.tar.zst")
	if err := Export(t.Context(), img.ArtifactDir, packed); err != nil {
		t.Fatal(err)
	}
	got, err := newBuilder(t).Import(t.Context(), packed, "", quiet)
	if err != nil {
		t.Fatal(err)
	}
	mine, _ := os.ReadFile(seed)
	theirs, _ := os.ReadFile(got.WorkSeedPath)
	if !bytes.Equal(mine, theirs) || len(mine) == 0 || Verify(t.Context(), got.ArtifactDir) != nil {
		t.Error("it differs")
	}
	_, r, err := Load(got.ArtifactDir)
	if err != nil || r.Seed.Registered != nil || r.Registered != nil {
		t.Errorf("%+v %v", r.Seed, err)
	}
}

func TestHostileSeedsOfPacksAreRefused(t *testing.T) {
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	rootfs, seed := rootfsOf(t, file("a", "1", 0o644)), rootfsOf(t, file("b", "2", 0o644))
	theRootfs, theSeed := file(rootfsFile, read(rootfs), 0o644), file(seedFile, read(seed), 0o644)
	say := func(change func(*manifest)) string {
		m := manifestOf(Record{
			Name: "x", Digest: mustSHA256(t, rootfs), SizeBytes: int64(len(read(rootfs))),
			Seed: &Seed{Digest: mustSHA256(t, seed), SizeBytes: int64(len(read(seed)))},
		})
		change(&m)
		b, _ := json.Marshal(m)
		return string(b)
	}
	as, junk := func(*manifest) {}, strings.Repeat("x", 4096)
	for name, c := range map[string]struct {
		pack []byte
		want string
	}{
		"as it is":           {packOf(t, say(as), theRootfs, theSeed), ""},
		"no seed":            {packOf(t, say(as), theRootfs), "it ends where work-seed.ext4 should be"},
		"in another order":   {packOf(t, say(as), theSeed, theRootfs), `"work-seed.ext4" where rootfs.ext4 should be`},
		"a link":             {packOf(t, say(as), theRootfs, link(tar.TypeSymlink, seedFile, "/etc/passwd")), "where work-seed.ext4 should be"},
		"another content":    {packOf(t, say(as), theRootfs, file(seedFile, strings.Repeat("x", len(read(seed))), 0o644)), "work-seed.ext4 has the digest"},
		"a wrong digest":     {packOf(t, say(func(m *manifest) { m.Seed.Digest = strings.Repeat("a", 64) }), theRootfs, theSeed), "has the digest"},
		"a lying size":       {packOf(t, say(func(m *manifest) { m.Seed.SizeBytes-- }), theRootfs, theSeed), "bytes instead of"},
		"a huge claim":       {packOf(t, say(func(m *manifest) { m.Seed.SizeBytes = 1 << 50 }), theRootfs, theSeed), "claims 1125899906842624 bytes for work-seed.ext4"},
		"no claim":           {packOf(t, say(func(m *manifest) { m.Seed.SizeBytes = 0 }), theRootfs, theSeed), "claims 0 bytes for work-seed.ext4"},
		"the old format":     {packOf(t, say(func(m *manifest) { m.Format = packFormat }), theRootfs, theSeed), "a work seed goes with 2"},
		"the new format":     {packOf(t, say(func(m *manifest) { m.Seed = nil }), theRootfs), "a work seed goes with 2"},
		"more than an image": {packOf(t, say(as), theRootfs, theSeed, theSeed), `more than an image: "work-seed.ext4"`},
		"no file system": {packOf(t, say(func(m *manifest) {
			m.Seed = &Seed{Digest: sha256Of(junk), SizeBytes: int64(len(junk))}
		}), theRootfs, file(seedFile, junk, 0o644)), "work-seed.ext4 is refused: it is something else, not an ext4 file system"},
		"a file of the host's": {packOf(t, say(func(m *manifest) {
			m.Seed.Registered = &Registered{Path: "/etc/passwd"}
		}), theRootfs, theSeed), ""},
	} {
		path, b := filepath.Join(t.TempDir(), "pack"), newBuilder(t)
		if err := os.WriteFile(path, c.pack, 0o600); err != nil {
			t.Fatal(err)
		}
		img, err := b.Import(t.Context(), path, "", quiet)
		switch {
		case c.want == "" && err == nil:
			if img.WorkSeedPath != filepath.Join(img.ArtifactDir, seedFile) {
				t.Errorf("%s: its seed is %s", name, img.WorkSeedPath)
			}
			continue
		case c.want == "" || err == nil || !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if left, _ := filepath.Glob(b.Dir + "/[^.]*"); len(left) > 0 {
			t.Errorf("%s: left %v", name, left)
		}
		if left, _ := filepath.Glob(b.Dir + "/.build*"); len(left) > 0 {
			t.Errorf("%s: left %v", name, left)
		}
	}
}
