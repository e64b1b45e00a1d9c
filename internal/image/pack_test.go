package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/ext4"
)

// rootfsOf writes a small file system.
func rootfsOf(t testing.TB, parts ...part) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rootfs.ext4")
	if err := ext4.FromTar(t.Context(), bytes.NewReader(tarOf(t, parts...)), path, ext4.Options{Unique: true}); err != nil {
		t.Fatal(err)
	}
	return path
}

// mustRegister registers a file as image "mine".
func mustRegister(t testing.TB, b Builder, path string) banger.Image {
	t.Helper()
	img, err := b.Register(t.Context(), Registration{Name: "mine", Rootfs: path}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestARegisteredFileStaysWhereItIsAndMustNotChange(t *testing.T) {
	b, path := newBuilder(t), rootfsOf(t, file("a", "1", 0o644))
	img := mustRegister(t, b, path)
	_, r, err := Load(filepath.Join(b.Dir, img.ID))
	if err != nil || img.Managed || img.RootfsPath != path || r.Unchanged() != nil {
		t.Fatalf("%+v %v %v", img, err, r.Unchanged())
	}
	now := time.Now().Add(time.Hour)
	if err := os.Chtimes(path, now, now); err != nil {
		t.Fatal(err)
	}
	if err := r.Unchanged(); banger.CodeOf(err) != banger.Conflict || !strings.Contains(err.Error(), "has changed") {
		t.Errorf("after a change: %v", err)
	}
	if _, err := b.Promote(t.Context(), img.ArtifactDir); banger.CodeOf(err) != banger.Conflict {
		t.Errorf("promoted after a change: %v", err)
	}
	os.Remove(path)
	if err := r.Unchanged(); banger.CodeOf(err) != banger.Conflict {
		t.Errorf("after a removal: %v", err)
	}
}

func TestAPromotedImageNeedsItsFileNoMore(t *testing.T) {
	b, path := newBuilder(t), rootfsOf(t, file("a", "1", 0o644))
	img := mustRegister(t, b, path)
	promoted, err := b.Promote(t.Context(), img.ArtifactDir)
	if err != nil || !promoted.Managed || promoted.ID != img.ID || promoted.RootfsPath == path {
		t.Fatalf("%+v %v", promoted, err)
	}
	os.Remove(path)
	if err := Verify(t.Context(), promoted.ArtifactDir); err != nil {
		t.Error(err)
	}
	// Whoever was killed after it finishes it so.
	if again, err := b.Promote(t.Context(), img.ArtifactDir); err != nil || again != promoted {
		t.Errorf("again: %+v %v", again, err)
	}
}

func TestWhatIsLeftOfAPromotionGoes(t *testing.T) {
	b, path := newBuilder(t), rootfsOf(t, file("a", "1", 0o644))
	img := mustRegister(t, b, path)
	dir := filepath.Join(b.Dir, img.ID)
	left := partOf(filepath.Join(dir, rootfsFile))
	for _, clear := range []func() error{b.Sweep, func() error { _, err := b.Promote(t.Context(), dir); return err }} {
		if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := clear(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(left); err == nil {
			t.Error("it is still there")
		}
	}
}

func TestAPackDoesNotSayWhereItsImageCameFrom(t *testing.T) {
	b := newBuilder(t)
	img := mustRegister(t, b, rootfsOf(t, file("a", "1", 0o644)))
	dir := filepath.Join(b.Dir, img.ID)
	_, r, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		size string
		code banger.Code
	}{{"16G", ""}, {"much", banger.BadRequest}, {"1", banger.BadRequest}} {
		r.Ref, r.Manifest, r.Layers, r.BuildSize = "docker.io/library/redis:latest", "sha256:1", []string{"sha256:2"}, c.size
		packed := filepath.Join(t.TempDir(), "pack")
		if err := errors.Join(writeRecord(dir, r), Export(t.Context(), dir, packed)); err != nil {
			t.Fatal(err)
		}
		got, err := newBuilder(t).Import(t.Context(), packed, "redis", quiet)
		if banger.CodeOf(err) != c.code {
			t.Errorf("%s: %v", c.size, err)
		}
		if err != nil {
			continue
		}
		if _, r, err := Load(got.ArtifactDir); err != nil || r.Ref != "" || r.Manifest != "" || r.Layers != nil || r.BuildSize != c.size {
			t.Errorf("%+v %v", r, err)
		}
	}
}

func TestAPackBecomesTheSameImage(t *testing.T) {
	b, path := newBuilder(t), rootfsOf(t, file("a", "1", 0o644), file("zeros", strings.Repeat("\x00", 8<<20), 0o644))
	img := mustRegister(t, b, path)
	packed := filepath.Join(t.TempDir(), "mine.tar.zst")
	if err := Export(t.Context(), img.ArtifactDir, packed); err != nil {
		t.Fatal(err)
	}
	if name, err := PackName(packed); err != nil || name != "mine" {
		t.Errorf("%s %v", name, err)
	}
	other := newBuilder(t)
	got, err := other.Import(t.Context(), packed, "theirs", quiet)
	if err != nil || got.Name != "theirs" || !got.Managed {
		t.Fatalf("%+v %v", got, err)
	}
	mine, _ := os.ReadFile(path)
	theirs, _ := os.ReadFile(got.RootfsPath)
	if !bytes.Equal(mine, theirs) || Verify(t.Context(), got.ArtifactDir) != nil {
		t.Error("it differs")
	}
	if left, _ := os.ReadDir(filepath.Dir(packed)); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

func TestAPackTakesThePlaceOfPlainFilesOnly(t *testing.T) {
	b, dir := newBuilder(t), t.TempDir()
	img := mustRegister(t, b, rootfsOf(t, file("a", "1", 0o644)))
	at := func(name string) string { return filepath.Join(dir, name) }
	err := errors.Join(os.Mkdir(at("dir"), 0o700), unix.Mkfifo(at("pipe"), 0o600), os.Symlink("pipe", at("to-pipe")),
		os.WriteFile(at("old"), nil, 0o600), os.Symlink("old", at("to-old")))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"dir": "is a directory", "pipe": "no plain file", "to-pipe": "no plain file", "old": "", "to-old": "", "new": ""} {
		before, _ := os.Lstat(at(name))
		err := Export(t.Context(), img.ArtifactDir, at(name))
		if (err == nil) != (want == "") || err != nil && (banger.CodeOf(err) != banger.BadRequest || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", name, err)
		}
		after, err := os.Lstat(at(name))
		if err != nil || before != nil && after.Mode().Type() != before.Mode().Type() {
			t.Errorf("%s became %v, %v", name, after, err)
		}
	}
	if name, err := PackName(at("old")); err != nil || name != "mine" {
		t.Errorf("%s %v", name, err)
	}
}

func TestAPipeIsRefusedInsteadOfWaitedFor(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBuilder(t)
	for name, take := range map[string]func() error{
		"register": func() error {
			_, err := b.Register(t.Context(), Registration{Name: "mine", Rootfs: pipe}, quiet)
			return err
		},
		"import": func() error { _, err := b.Import(t.Context(), pipe, "mine", quiet); return err },
		"name":   func() error { _, err := PackName(pipe); return err },
	} {
		refused := make(chan error, 1)
		go func() { refused <- take() }()
		select {
		case err := <-refused:
			if banger.CodeOf(err) != banger.BadRequest {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s waits for the pipe", name)
		}
	}
}

func TestADamagedImageIsNotExported(t *testing.T) {
	b, path := newBuilder(t), rootfsOf(t, file("a", strings.Repeat("1", 10000), 0o644))
	img := mustRegister(t, b, path)
	if _, err := b.Promote(t.Context(), img.ArtifactDir); err != nil {
		t.Fatal(err)
	}
	flip(t, filepath.Join(img.ArtifactDir, rootfsFile))
	dir := t.TempDir()
	if err := Export(t.Context(), img.ArtifactDir, filepath.Join(dir, "x")); banger.CodeOf(err) != banger.Conflict {
		t.Error(err)
	}
	wantOnly(t, dir)
}

func flip(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// packOf writes a pack of a manifest and entries as they are.
func packOf(t testing.TB, text string, parts ...part) []byte {
	t.Helper()
	return zipped(t, append([]part{file(packManifest, text, 0o644)}, parts...)...)
}

func zipped(t testing.TB, parts ...part) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return z.EncodeAll(tarOf(t, parts...), nil)
}

func hostilePacks(t testing.TB) map[string]struct {
	pack []byte
	want string
} {
	path := rootfsOf(t, file("a", "1", 0o644))
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	say := func(change func(*manifest)) string {
		m := manifestOf(Record{Name: "x", Digest: mustSHA256(t, path), SizeBytes: int64(len(content))})
		change(&m)
		b, _ := json.Marshal(m)
		return string(b)
	}
	as := func(*manifest) {}
	rootfs := file(rootfsFile, string(content), 0o644)
	good := packOf(t, say(as), rootfs)
	junk := file(rootfsFile, strings.Repeat("x", len(content)), 0o644)
	type c = struct {
		pack []byte
		want string
	}
	return map[string]c{
		"no zstd":            {[]byte("something else"), "it is no pack"},
		"empty":              {nil, "it is no pack"},
		"another first file": {zipped(t, rootfs), `it begins with "rootfs.ext4"`},
		"no JSON":            {packOf(t, "{", rootfs), "manifest cannot be read"},
		"a newer format":     {packOf(t, say(func(m *manifest) { m.Format = 3 }), rootfs), "it has the format 3"},
		"a name that leaves": {packOf(t, say(func(m *manifest) { m.Name = "../x" }), rootfs), "../x"},
		"a huge claim":       {packOf(t, say(func(m *manifest) { m.SizeBytes = 1 << 50 }), rootfs), "claims 1125899906842624 bytes"},
		"no claim":           {packOf(t, say(func(m *manifest) { m.SizeBytes = 0 }), rootfs), "claims 0 bytes"},
		"a lying claim":      {packOf(t, say(func(m *manifest) { m.SizeBytes++ }), rootfs), "bytes instead of"},
		"a wrong digest":     {packOf(t, say(func(m *manifest) { m.Digest = strings.Repeat("a", 64) }), rootfs), "has the digest"},
		"another content":    {packOf(t, say(as), junk), "has the digest"},
		"only a manifest":    {packOf(t, say(as)), "it ends where rootfs.ext4 should be"},
		"another file":       {packOf(t, say(as), file("../../etc/passwd", "x", 0o644)), `"../../etc/passwd" where rootfs.ext4 should be`},
		"a link":             {packOf(t, say(as), link(tar.TypeSymlink, rootfsFile, "/etc/passwd")), "where rootfs.ext4 should be"},
		"more than an image": {packOf(t, say(as), rootfs, file("more", "x", 0o644)), `more than an image: "more"`},
		"truncated":          {good[:len(good)*2/3], "unexpected EOF"},
		"a huge manifest":    {packOf(t, strings.Repeat(" ", maxManifest+1), rootfs), "it is no pack"},
		"no file system": {packOf(t, say(func(m *manifest) {
			m.Digest, m.SizeBytes = "8b0ec5b4ac1eb3a4e91a6a9ae0f1d4b8d7cf2ad4bd7d3f3ad6c4fbd2a3fd8a8f", 10
		}), file(rootfsFile, "0123456789", 0o644)), "digest"},
	}
}

func mustSHA256(t testing.TB, path string) string {
	t.Helper()
	b := newBuilder(t)
	_, r, err := Load(mustRegister(t, b, path).ArtifactDir)
	if err != nil {
		t.Fatal(err)
	}
	return r.Digest
}

func TestHostilePacksAreRefusedByNameAndLeaveNothing(t *testing.T) {
	for name, c := range hostilePacks(t) {
		path := filepath.Join(t.TempDir(), "pack")
		if err := os.WriteFile(path, c.pack, 0o600); err != nil {
			t.Fatal(err)
		}
		b := newBuilder(t)
		_, err := b.Import(t.Context(), path, "", quiet)
		if err == nil || !strings.Contains(err.Error(), c.want) {
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

func FuzzPacks(f *testing.F) {
	for _, c := range hostilePacks(f) {
		if len(c.pack) < 8<<10 {
			f.Add(c.pack)
		}
	}
	f.Fuzz(func(t *testing.T, pack []byte) {
		b := newBuilder(t)
		img, err := b.importFrom(t.Context(), io.LimitReader(bytes.NewReader(pack), 1<<20), "", quiet)
		if err == nil && Verify(t.Context(), img.ArtifactDir) != nil {
			t.Error("an image that is not what its record says")
		}
		if left, _ := filepath.Glob(b.Dir + "/.build*"); len(left) > 0 {
			t.Errorf("left %v", left)
		}
	})
}

func TestWhatIsNoSoundExt4IsRefusedByName(t *testing.T) {
	path := rootfsOf(t, file("a", "1", 0o644))
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := func(at int, to byte) []byte {
		b := bytes.Clone(sound)
		b[1024+at] = to
		return b
	}
	at := func(offset int, sign string) []byte {
		b := make([]byte, 128<<10)
		copy(b[offset:], sign)
		return b
	}
	for name, c := range map[string]struct {
		content []byte
		want    string
	}{
		"dirty":          {changed(0x60, sound[1024+0x60]|4), "dirty ext4"},
		"not unmounted":  {changed(0x3a, 0), "dirty ext4"},
		"with errors":    {changed(0x3a, 3), "with errors"},
		"ext3":           {changed(0x60, sound[1024+0x60]&^0x40), "ext2 or ext3"},
		"cut off":        {sound[:len(sound)/2], "cut off"},
		"qcow2":          {at(0, "QFI\xfb"), "a qcow2 image"},
		"squashfs":       {at(0, "hsqs"), "a squashfs"},
		"xfs":            {at(0, "XFSB"), "an XFS"},
		"btrfs":          {at(0x10040, "_BHRfS_M"), "a btrfs"},
		"partitions":     {at(512, "EFI PART"), "a disk with partitions"},
		"old partitions": {at(510, "\x55\xaa"), "a disk with partitions"},
		"iso":            {at(0x8001, "CD001"), "an ISO 9660"},
		"compressed":     {[]byte("\x1f\x8b\x08\x00"), "gzip data"},
		"empty":          {nil, "it is empty"},
		"something else": {at(0, "hello"), "something else"},
	} {
		path := filepath.Join(t.TempDir(), "fs")
		if err := os.WriteFile(path, c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		b := newBuilder(t)
		_, err := b.Register(t.Context(), Registration{Name: "mine", Rootfs: path}, quiet)
		if banger.CodeOf(err) != banger.BadRequest || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if left, _ := os.ReadDir(b.Dir); len(left) > 0 {
			t.Errorf("%s: left %v", name, left)
		}
	}
	if _, err := newBuilder(t).Register(t.Context(), Registration{Name: "mine", Rootfs: t.TempDir()}, quiet); err == nil {
		t.Error("a directory is registered")
	}
}
