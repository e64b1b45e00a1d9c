package image

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/oci"
)

// A real registry over TCP, and images of layers made here.

type part struct {
	tar.Header
	content string
}

func file(name, content string, mode int64) part {
	return part{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, Size: int64(len(content))}, content}
}
func folder(name string, mode int64) part {
	return part{Header: tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: mode}}
}
func without(name string) part { return file(name, "", 0) }

func (p part) owned(uid, gid int) part { p.Uid, p.Gid = uid, gid; return p }
func (p part) with(xattr, value string) part {
	p.PAXRecords = map[string]string{"SCHILY.xattr." + xattr: value}
	return p
}

func link(kind byte, name, to string) part {
	return part{Header: tar.Header{Name: name, Typeflag: kind, Linkname: to}}
}

func tarOf(t testing.TB, parts ...part) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, p := range parts {
		if err := w.WriteHeader(&p.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, p.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func layerOf(t testing.TB, parts ...part) v1.Layer {
	t.Helper()
	content := tarOf(t, parts...)
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
	if err != nil {
		t.Fatal(err)
	}
	return layer
}

// zstdLayer is a layer in the newer form.
func zstdLayer(t testing.TB, parts ...part) v1.Layer {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	content := z.EncodeAll(tarOf(t, parts...), nil)
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }, tarball.WithMediaType(types.OCILayerZStd))
	if err != nil {
		t.Fatal(err)
	}
	return layer
}

type shop struct {
	host  string
	blobs atomic.Int64
	meet  atomic.Pointer[func(http.ResponseWriter, *http.Request)]
}

func openShop(t testing.TB) *shop {
	t.Helper()
	s := &shop{}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if meet := s.meet.Load(); meet != nil {
			(*meet)(w, r)
		}
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			s.blobs.Add(1)
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	s.host = strings.TrimPrefix(server.URL, "http://")
	return s
}

func imageOf(t testing.TB, layers ...v1.Layer) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.AppendLayers(img, layers...)
	if err != nil {
		t.Fatal(err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c = c.DeepCopy()
	c.OS, c.Architecture = "linux", "amd64"
	c.Config = v1.Config{Env: []string{"A=1"}, WorkingDir: "/work", User: "app", Entrypoint: []string{"/entry"}, Cmd: []string{"cmd"}}
	if img, err = mutate.ConfigFile(img, c); err != nil {
		t.Fatal(err)
	}
	return img
}

func (s *shop) push(t testing.TB, ref string, img v1.Image) {
	t.Helper()
	r, err := name.ParseReference(s.host + "/" + ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(r, img); err != nil {
		t.Fatal(err)
	}
}

func (s *shop) request(t testing.TB, ref string) PullRequest {
	t.Helper()
	r, err := oci.Parse(s.host + "/" + ref)
	if err != nil {
		t.Fatal(err)
	}
	return PullRequest{Ref: r, Name: r.ImageName()}
}

func newBuilder(t testing.TB) Builder {
	return Builder{Dir: filepath.Join(t.TempDir(), "images"), Cache: oci.Cache{Dir: filepath.Join(t.TempDir(), "oci")}}
}

func quiet(string) {}

// manyWays are layers with everything a layer can say.
func manyWays(t testing.TB) []v1.Layer {
	long := strings.Repeat("long-", 20)
	return []v1.Layer{
		layerOf(t,
			folder(".", 0o755), folder("etc", 0o755), file("etc/passwd", "root:x:0:0::/:/bin/sh\napp:x:7:7::/:/bin/sh\n", 0o644), file("etc/shadow", "secret", 0o600).owned(0, 42),
			folder("usr", 0o755), folder("usr/lib", 0o755), file("usr/lib/a.so", "a", 0o755), link(tar.TypeSymlink, "lib", "usr/lib"),
			folder("gone", 0o755), file("gone/a", "1", 0o644), file("gone/b", "2", 0o644), folder("opaque", 0o755), file("opaque/old", "old", 0o644), folder("opaque/dir", 0o755), file("opaque/dir/x", "x", 0o644),
			folder("swap", 0o755), file("swap/in", "in", 0o644), file("back", "a file", 0o644), file("chmod", "same", 0o644), file("su", "su", 0o4755), folder("tmp", 0o1777),
			file("shared", "shared content", 0o640).owned(1000, 1000), file("caps", "x", 0o755).with("user.note", "v\x00w"),
		),
		layerOf(t, without(".wh.gone"), folder("opaque", 0o700), file("opaque/new", "new", 0o644), without("opaque/.wh..wh..opq"), file("swap", "now a file", 0o644), folder("back", 0o755), file("back/in", "in", 0o644)),
		zstdLayer(t, file("chmod", "same", 0o600), link(tar.TypeLink, "linked", "shared"), link(tar.TypeLink, "etc/linked-too", "shared"), file("lib/b.so", "b", 0o755)),
		layerOf(t, folder("swap", 0o711), file("swap/again", "again", 0o644), file("back", "a file again", 0o644), file("shared", "changed", 0o644)),
		zstdLayer(t, folder(long, 0o755), folder(long+"/"+long, 0o755), file(long+"/"+long+"/"+long, "deep", 0o644), file(strings.Repeat("n", 255), "longest", 0o644),
			link(tar.TypeSymlink, "far", "/"+strings.Repeat("y/", 300)+"z"), part{Header: tar.Header{Name: "pipe", Typeflag: tar.TypeFifo, Mode: 0o600}}),
		layerOf(t, file("large", strings.Repeat("z", 3<<20)+strings.Repeat("\x00", 20<<20)+"end", 0o644), without("usr/lib/.wh.a.so"), file("empty", "", 0o644)),
	}
}

// world lists what a directory holds, a line a file.
func world(t *testing.T, root string) string {
	t.Helper()
	var lines []string
	inodes := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if rel == "lost+found" {
			return fs.SkipDir
		}
		if st.Mode&unix.S_IFMT == unix.S_IFIFO {
			return nil
		}
		line := fmt.Sprintf("%s %o %d:%d", rel, st.Mode&^0o7000, st.Uid, st.Gid)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d bytes %x", len(b), sum(b))
			if first, again := inodes[st.Ino]; again {
				line += " is " + first
			}
			inodes[st.Ino] = rel
		case unix.S_IFLNK:
			to, _ := os.Readlink(path)
			line += " > " + to
		}
		value := make([]byte, 100)
		if n, err := unix.Lgetxattr(path, "user.note", value); err == nil {
			line += fmt.Sprintf(" note %q", value[:n])
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func sum(b []byte) (s uint32) {
	for _, c := range b {
		s = s*16777619 ^ uint32(c)
	}
	return s
}

// extract makes files of a file system, with the tools that all others trust.
func extract(t *testing.T, rootfs string) string {
	t.Helper()
	tool := ""
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/bin"} {
		if _, err := os.Stat(dir + "/debugfs"); err == nil {
			tool = dir + "/debugfs"
		}
	}
	if tool == "" || os.Geteuid() != 0 {
		t.Skip("needs root, to give files to others, and debugfs of e2fsprogs")
	}
	dir := t.TempDir()
	if out, err := exec.Command(tool, "-R", "rdump / "+dir, rootfs).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

func TestAPulledImageIsWhatUmociMakesOfIt(t *testing.T) {
	umoci, err := exec.LookPath("umoci")
	if err != nil {
		t.Skip("umoci is not installed: the comparison with it is left out")
	}
	s, b := openShop(t), newBuilder(t)
	img := imageOf(t, manyWays(t)...)
	s.push(t, "many:1", img)
	pulled, err := b.Pull(t.Context(), s.request(t, "many:1"), quiet)
	if err != nil {
		t.Fatal(err)
	}
	ours := extract(t, pulled.RootfsPath)

	// umoci of Debian 12 knows no zstd: it gets the same layers in gzip.
	var plain []v1.Layer
	layers, _ := img.Layers()
	for _, l := range layers {
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return uncompressed(l) }, tarball.WithMediaType(types.OCILayer))
		if err != nil {
			t.Fatal(err)
		}
		plain = append(plain, l)
	}
	dir := t.TempDir()
	at, err := layout.Write(dir+"/oci", empty.Index)
	if err == nil {
		err = at.AppendImage(imageOf(t, plain...), layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "many"}))
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(umoci, "unpack", "--image", dir+"/oci:many", dir+"/bundle").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got, want := strings.Split(world(t, ours), "\n"), strings.Split(world(t, dir+"/bundle/rootfs"), "\n")
	// debugfs makes no hard links, attributes, pipes and set-user-id bits, umoci
	// all of them: TestAPulledImageKeepsLinksAndAttributes looks at those.
	for i := range want {
		want[i], _, _ = strings.Cut(want[i], " is ")
		want[i], _, _ = strings.Cut(want[i], " note ")
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("only ours: %s", line)
		}
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("only umoci's: %s", line)
		}
	}
	if len(got) < 25 {
		t.Errorf("only %d files were compared", len(got))
	}
}

func uncompressed(l v1.Layer) (io.ReadCloser, error) {
	r, err := l.Uncompressed()
	if err != nil {
		return nil, err
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	rest := io.MultiReader(bytes.NewReader(b), r)
	if !bytes.Equal(b, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
		return io.NopCloser(rest), nil
	}
	z, err := zstd.NewReader(rest)
	return io.NopCloser(z), err
}

func debugfs(t *testing.T, path, request string) string {
	t.Helper()
	out, err := exec.Command("/usr/sbin/debugfs", "-R", request, path).Output()
	if err != nil {
		t.Skip("debugfs of e2fsprogs is not installed")
	}
	return string(out)
}

func TestAPulledImageKeepsLinksAndAttributes(t *testing.T) {
	s, b := openShop(t), newBuilder(t)
	s.push(t, "many:1", imageOf(t, manyWays(t)...))
	req := s.request(t, "many:1")
	req.OwnUser, req.BuildSize = true, "16G"
	pulled, err := b.Pull(t.Context(), req, quiet)
	if err != nil {
		t.Fatal(err)
	}
	for request, want := range map[string]string{
		"stat /linked":           "Links: 2",
		"cat /etc/linked-too":    "shared content",
		"cat /shared":            "changed",
		"ea_get /caps user.note": `user.note (3)`,
		"stat /su":               "Mode:  04755",
		"stat /tmp":              "Mode:  01777",
		"stat /pipe":             "Type: FIFO",
	} {
		if got := debugfs(t, pulled.RootfsPath, request); !strings.Contains(got, want) {
			t.Errorf("%s: no %q in\n%s", request, want, got)
		}
	}
	info, err := os.Stat(pulled.RootfsPath)
	if err != nil {
		t.Fatal(err)
	}
	if used := info.Sys().(*syscall.Stat_t).Blocks * 512; used > info.Size()-15<<20 {
		t.Errorf("%d bytes take %d: zeros are written", info.Size(), used)
	}
	_, r, err := Load(pulled.ArtifactDir)
	if err != nil || r.User != "app" || r.WorkDir != "/work" || strings.Join(r.Env, " ") != "A=1" || r.Entrypoint[0] != "/entry" || r.Cmd[0] != "cmd" || len(r.Layers) != 6 || pulled.BuildSize != "16G" {
		t.Errorf("%+v %v", r, err)
	}
	if err := Verify(t.Context(), pulled.ArtifactDir); err != nil {
		t.Error(err)
	}
}

func TestTwoPullsOfOneNameDoTheWorkOnceAndOneThatIsCancelledDoesNotFailTheOther(t *testing.T) {
	s, b := openShop(t), newBuilder(t)
	s.push(t, "many:1", imageOf(t, manyWays(t)...))
	images := make([]banger.Image, 3)
	var wait sync.WaitGroup
	for i := range images {
		wait.Go(func() {
			var err error
			if images[i], err = b.Pull(t.Context(), s.request(t, "many:1"), quiet); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if n := s.blobs.Load(); n != 7 || images[0].ID != images[1].ID || images[1].ID != images[2].ID {
		t.Errorf("%d blobs were fetched, for %v", n, images)
	}

	s.push(t, "other:1", imageOf(t, layerOf(t, file("a", "1", 0o644))))
	ctx, cancel := context.WithCancel(t.Context())
	second := make(chan error, 1)
	_, err := b.Pull(ctx, s.request(t, "other:1"), func(stage string) {
		if strings.HasPrefix(stage, "unpack") {
			go func() {
				_, err := b.Pull(t.Context(), s.request(t, "other:1"), quiet)
				second <- err
			}()
			cancel()
		}
	})
	if banger.CodeOf(err) != banger.Cancelled {
		t.Errorf("the cancelled one: %v", err)
	}
	if err := <-second; err != nil {
		t.Errorf("the other one: %v", err)
	}
}

func TestAPullThatFailsLeavesNothing(t *testing.T) {
	s := openShop(t)
	for name, c := range map[string]struct {
		layers []v1.Layer
		want   string
	}{
		"escape":       {[]v1.Layer{layerOf(t, file("../../x", "1", 0o644))}, `"../../x" leaves the tree`},
		"device":       {[]v1.Layer{layerOf(t, part{Header: tar.Header{Name: "sda", Typeflag: tar.TypeBlock}})}, `"sda" is a device node`},
		"attribute":    {[]v1.Layer{layerOf(t, file("a", "1", 0o644).with("user.x", strings.Repeat("x", 5000)))}, "could not fit xattr user.x"},
		"in the third": {[]v1.Layer{layerOf(t, file("a", "1", 0o644)), layerOf(t, file("b", "1", 0o644)), layerOf(t, link(tar.TypeLink, "l", "nothing"))}, "is not there"},
	} {
		b := newBuilder(t)
		s.push(t, "bad:1", imageOf(t, c.layers...))
		_, err := b.Pull(t.Context(), s.request(t, "bad:1"), quiet)
		if banger.CodeOf(err) != banger.BadRequest || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %s, %v", name, banger.CodeOf(err), err)
		}
		wantOnly(t, b.Dir, ".lock-bad-1")
	}
}

const killedPull = "BANGER_TEST_KILLED_PULL"

// TestPullThatIsKilled is not a test but the process that another one kills,
// at the moment that the variable names.
func TestPullThatIsKilled(t *testing.T) {
	var dir, cache, ref, stage string
	if n, _ := fmt.Sscan(os.Getenv(killedPull), &dir, &cache, &ref, &stage); n != 4 {
		t.Skip("runs only as a child of TestAPullKilledAnywhereIsFinishedByTheNext")
	}
	r, err := oci.Parse(ref)
	if err != nil {
		t.Fatal(err)
	}
	_, err = (Builder{Dir: dir, Cache: oci.Cache{Dir: cache}}).Pull(t.Context(), PullRequest{Ref: r, Name: "x"}, func(now string) {
		if strings.HasPrefix(strings.ReplaceAll(now, " ", "-"), stage) {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		}
	})
	t.Errorf("survived: %v", err)
}

func TestAPullKilledAnywhereIsFinishedByTheNext(t *testing.T) {
	s, b := openShop(t), newBuilder(t)
	s.push(t, "many:1", imageOf(t, manyWays(t)...))
	for _, stage := range []string{"ask", "unpack-layer-1", "unpack-layer-3", "unpack-layer-6", "write", "compute"} {
		child := exec.Command(os.Args[0], "-test.run=^TestPullThatIsKilled$")
		child.Env = append(os.Environ(), killedPull+"="+strings.Join([]string{b.Dir, b.Cache.Dir, s.host + "/many:1", stage}, " "))
		if out, err := child.CombinedOutput(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("%s: %v\n%s", stage, err, out)
		}
		if listed, err := b.Lost(nil); err != nil || len(listed) > 0 {
			t.Errorf("%s: listed is %v, %v", stage, listed, err)
		}
	}
	req := s.request(t, "many:1")
	req.Name = "x"
	pulled, err := b.Pull(t.Context(), req, quiet)
	if err != nil {
		t.Fatal(err)
	}
	wantOnly(t, b.Dir, ".lock-x", pulled.ID)
	if err := Verify(t.Context(), pulled.ArtifactDir); err != nil {
		t.Error(err)
	}
}

func TestADamagedCacheIsFetchedAgainByItself(t *testing.T) {
	s, b := openShop(t), newBuilder(t)
	s.push(t, "many:1", imageOf(t, manyWays(t)...))
	if _, err := b.Pull(t.Context(), s.request(t, "many:1"), quiet); err != nil {
		t.Fatal(err)
	}
	blobs, _ := filepath.Glob(b.Cache.Dir + "/sha256/*")
	for _, path := range blobs {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if content[0] == '{' {
			continue // the configuration
		}
		content[len(content)/2] ^= 1
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		req := s.request(t, "many:1")
		req.Name = "again-" + filepath.Base(path)[:8]
		if _, err := b.Pull(t.Context(), req, quiet); err != nil {
			t.Errorf("%s: %v", filepath.Base(path)[:12], err)
		}
	}
}

func TestAPullGoesOnWhereThePruneOfTheCacheCameBetween(t *testing.T) {
	s, b := openShop(t), newBuilder(t)
	s.push(t, "two:1", imageOf(t, layerOf(t, file("a", "1", 0o644)), layerOf(t, file("b", "2", 0o644))))
	var once sync.Once
	pulled, err := b.Pull(t.Context(), s.request(t, "two:1"), func(stage string) {
		if strings.HasPrefix(stage, "unpack layer 1") {
			once.Do(func() {
				if _, _, err := b.Cache.Prune(func(string) bool { return false }, false); err != nil {
					t.Error(err)
				}
			})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(t.Context(), pulled.ArtifactDir); err != nil {
		t.Error(err)
	}
}

func TestImageThatIsSentInTooManyBytesIsRefusedBeforeAnyOfIt(t *testing.T) {
	layers := make([]oci.Layer, 4)
	for i := range layers {
		layers[i].Size = 16 << 30
	}
	if err := checkSent(&oci.Image{Layers: layers}); err != nil {
		t.Error(err)
	}
	layers[0].Size++
	if err := checkSent(&oci.Image{Layers: layers}); banger.CodeOf(err) != banger.BadRequest {
		t.Errorf("got %v", err)
	}
}
