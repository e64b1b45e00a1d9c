package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"banger"
)

// shop is a real registry on this machine, over TCP, with what a test wants to
// happen on the way.
type shop struct {
	*httptest.Server
	host  string
	mu    sync.Mutex
	meet  func(w http.ResponseWriter, r *http.Request, next http.Handler)
	blobs atomic.Int64 // requests for blobs
}

func open1(t *testing.T) *shop {
	t.Helper()
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	s := &shop{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			s.blobs.Add(1)
		}
		s.mu.Lock()
		meet := s.meet
		s.mu.Unlock()
		if meet != nil {
			meet(w, r, inner)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.host = strings.TrimPrefix(s.URL, "http://")
	t.Cleanup(s.Close)
	return s
}

func (s *shop) on(meet func(w http.ResponseWriter, r *http.Request, next http.Handler)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.meet = meet
}

// layerOf is a layer with one file.
func layerOf(t testing.TB, file, content string) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	must(t, w.WriteHeader(&tar.Header{Name: file, Mode: 0o644, Size: int64(len(content))}))
	_, err := io.WriteString(w, content)
	must(t, err)
	must(t, w.Close())
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	must(t, err)
	return layer
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// push puts an image of these layers into the shop.
func (s *shop) push(t *testing.T, ref string, layers ...v1.Layer) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image, layers...)
	must(t, err)
	c, err := img.ConfigFile()
	must(t, err)
	c = c.DeepCopy()
	c.OS, c.Architecture = "linux", "amd64"
	c.Config = v1.Config{Env: []string{"A=1"}, WorkingDir: "/work", User: "app", Entrypoint: []string{"/entry"}, Cmd: []string{"cmd"}}
	img, err = mutate.ConfigFile(img, c)
	must(t, err)
	s.put(t, ref, img)
	return img
}

func (s *shop) put(t *testing.T, ref string, what remote.Taggable) {
	t.Helper()
	r, err := name.ParseReference(s.host + "/" + ref)
	must(t, err)
	switch what := what.(type) {
	case v1.Image:
		must(t, remote.Write(r, what))
	case v1.ImageIndex:
		must(t, remote.WriteIndex(r, what))
	}
}

// get finds and fetches an image, and gives its layers' contents.
func (s *shop) get(t *testing.T, ref string, cache Cache) ([]string, error) {
	t.Helper()
	r, err := Parse(s.host + "/" + ref)
	must(t, err)
	img, err := Find(t.Context(), r, banger.Access{}, cache)
	if err != nil {
		return nil, err
	}
	return contents(t, img, cache)
}

func contents(t *testing.T, img *Image, cache Cache) (all []string, err error) {
	for _, l := range img.Layers {
		if err := img.Fetch(t.Context(), cache, l); err != nil {
			return nil, err
		}
		err := img.Unpack(t.Context(), cache, l, func(r io.Reader) error {
			in := tar.NewReader(r)
			h, err := in.Next()
			if err != nil {
				return err
			}
			b, err := io.ReadAll(in)
			all = append(all, h.Name+"="+string(b))
			_, drained := io.Copy(io.Discard, r)
			return errors.Join(err, drained)
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

func newCache(t *testing.T) Cache { return Cache{Dir: filepath.Join(t.TempDir(), "oci")} }

func TestAnImageIsFoundWithWhatItIs(t *testing.T) {
	s := open1(t)
	pushed := s.push(t, "team/app:1", layerOf(t, "a", "1"), layerOf(t, "b", "2"))
	digest, _ := pushed.Digest()
	for _, ref := range []string{"team/app:1", "team/app@" + digest.String()} {
		r, err := Parse(s.host + "/" + ref)
		must(t, err)
		cache := newCache(t)
		img, err := Find(t.Context(), r, banger.Access{}, cache)
		must(t, err)
		if img.Digest != digest.String() || img.Config.Env[0] != "A=1" || img.Config.WorkingDir != "/work" || img.Config.User != "app" {
			t.Errorf("%s: %+v", ref, img)
		}
		if got, err := contents(t, img, cache); err != nil || strings.Join(got, " ") != "a=1 b=2" {
			t.Errorf("%s: %q %v", ref, got, err)
		}
	}
}

func TestOfSeveralPlatformsOursIsTaken(t *testing.T) {
	s := open1(t)
	ours := s.push(t, "ours", layerOf(t, "a", "ours"))
	other, err := mutate.ConfigFile(ours, &v1.ConfigFile{OS: "linux", Architecture: "arm64", RootFS: v1.RootFS{Type: "layers", DiffIDs: mustDiffIDs(t, ours)}})
	must(t, err)
	add := func(img v1.Image, arch string) mutate.IndexAddendum {
		return mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}}
	}
	s.put(t, "both", mutate.AppendManifests(empty.Index, add(other, "arm64"), add(ours, "amd64")))
	s.put(t, "foreign", mutate.AppendManifests(empty.Index, add(other, "arm64")))
	s.put(t, "single", other)
	if got, err := s.get(t, "both", newCache(t)); err != nil || got[0] != "a=ours" {
		t.Errorf("%q %v", got, err)
	}
	if _, err := s.get(t, "foreign", newCache(t)); err == nil || !strings.Contains(err.Error(), "linux/amd64") {
		t.Errorf("an index without ours: %v", err)
	}
	if _, err := s.get(t, "single", newCache(t)); banger.CodeOf(err) != banger.BadRequest || !strings.Contains(err.Error(), "made for linux/arm64") {
		t.Errorf("an image that is not ours: %v", err)
	}
}

func mustDiffIDs(t *testing.T, img v1.Image) []v1.Hash {
	t.Helper()
	c, err := img.ConfigFile()
	must(t, err)
	return c.RootFS.DiffIDs
}

func TestLayersAreFetchedOnce(t *testing.T) {
	s := open1(t)
	base := layerOf(t, "base", "b")
	s.push(t, "one", base, layerOf(t, "own", "1"))
	s.push(t, "two", base, layerOf(t, "own", "2"))
	cache := newCache(t)
	_, err := s.get(t, "one", cache)
	must(t, err)
	before := s.blobs.Load()
	got, err := s.get(t, "two", cache)
	if err != nil || strings.Join(got, " ") != "base=b own=2" {
		t.Errorf("%q %v", got, err)
	}
	if n := s.blobs.Load() - before; n != 2 { // its configuration and its own layer
		t.Errorf("%d blobs were fetched", n)
	}
}

func TestAtOnceALayerIsFetchedOnce(t *testing.T) {
	s := open1(t)
	s.push(t, "one", layerOf(t, "a", strings.Repeat("x", 1<<20)))
	cache := newCache(t)
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			if _, err := s.get(t, "one", cache); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if n := s.blobs.Load(); n != 2 {
		t.Errorf("%d blobs were fetched", n)
	}
}

func TestATransferThatBreaksOffIsGoneOnWith(t *testing.T) {
	s := open1(t)
	layer := noise(t, 900_000)
	s.push(t, "one", layer)
	digest, _ := layer.Digest()
	size, _ := layer.Size()
	var ranges []string
	s.on(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, digest.String()) {
			ranges = append(ranges, r.Header.Get("Range"))
			w = &cutting{ResponseWriter: w, left: 100_000}
		}
		next.ServeHTTP(w, r)
	})
	if _, err := s.get(t, "one", newCache(t)); err != nil {
		t.Fatal(err)
	}
	var last, from int
	for i, asked := range ranges {
		if _, err := fmt.Sscanf(asked, "bytes=%d-", &from); i > 0 && (err != nil || from <= last || !strings.HasSuffix(asked, fmt.Sprint("-", size-1))) {
			t.Errorf("asked for %q", ranges)
		}
		last = from
	}
	if len(ranges) < 9 {
		t.Errorf("asked %d times", len(ranges))
	}
}

func TestATransferThatGetsNoFurtherIsGivenUp(t *testing.T) {
	s := open1(t)
	layer := noise(t, 900_000)
	s.push(t, "one", layer)
	digest, _ := layer.Digest()
	asked := 0
	s.on(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, digest.String()) {
			if asked++; asked > 20 {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			r.Header.Del("Range") // from the beginning each time, and now further than before, now less far
			left := 200_000 + asked%2*100_000
			if asked == 1 {
				left = 600_000
			}
			w = &cutting{ResponseWriter: w, left: left}
		}
		next.ServeHTTP(w, r)
	})
	_, err := s.get(t, "one", newCache(t))
	if banger.CodeOf(err) != banger.Unavailable || asked != 1+attempts {
		t.Errorf("asked %d times: %v", asked, err)
	}
}

// noise is a layer that nothing makes smaller.
func noise(t testing.TB, size int) v1.Layer {
	t.Helper()
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		sum := sha256.Sum256(fmt.Append(nil, i))
		b.Write(sum[:])
	}
	return layerOf(t, "noise", b.String())
}

// cutting ends an answer in the middle.
type cutting struct {
	http.ResponseWriter
	left int
}

func (c *cutting) Write(p []byte) (int, error) {
	n, _ := c.ResponseWriter.Write(p[:min(len(p), c.left)])
	if c.left -= n; c.left <= 0 {
		panic(http.ErrAbortHandler)
	}
	return n, nil
}

func TestAPullGoesOnWhereACancelledOneEnded(t *testing.T) {
	s := open1(t)
	layer := noise(t, 900_000)
	s.push(t, "one", layer)
	digest, _ := layer.Digest()
	cache := newCache(t)
	ctx, cancel := context.WithCancel(t.Context())
	s.on(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, digest.String()) {
			next.ServeHTTP(&stopping{ResponseWriter: w, after: 300_000, stop: func() {
				waitFor(t, cache.path(digest)+partial, 300_000)
				cancel()
				<-r.Context().Done() // else the rest may be there before the end is
			}}, r)
			return
		}
		next.ServeHTTP(w, r)
	})
	ref, _ := Parse(s.host + "/one")
	img, err := Find(ctx, ref, banger.Access{}, cache)
	must(t, err)
	if err := img.Fetch(ctx, cache, img.Layers[0]); banger.CodeOf(err) != banger.Cancelled {
		t.Fatalf("the cancelled one: %v", err)
	}
	var asked string
	s.on(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.Contains(r.URL.Path, digest.String()) {
			asked = r.Header.Get("Range")
		}
		next.ServeHTTP(w, r)
	})
	if _, err := s.get(t, "one", cache); err != nil {
		t.Fatal(err)
	}
	var from int
	if _, err := fmt.Sscanf(asked, "bytes=%d-", &from); err != nil || from < 300_000 {
		t.Errorf("asked for %q", asked)
	}
}

type stopping struct {
	http.ResponseWriter
	after, sent int
	stop        func()
}

func (s *stopping) Write(p []byte) (int, error) {
	if s.sent > s.after && s.stop != nil {
		s.stop()
		s.stop = nil
	}
	n, err := s.ResponseWriter.Write(p[:min(len(p), 64<<10)])
	s.ResponseWriter.(http.Flusher).Flush()
	s.sent += n
	if n < len(p) && err == nil {
		m, err := s.Write(p[n:])
		return n + m, err
	}
	return n, err
}

// waitFor waits until a file has that many bytes.
func waitFor(t *testing.T, path string, size int64) {
	for t.Context().Err() == nil {
		if info, err := os.Stat(path); err == nil && info.Size() >= size {
			return
		}
	}
}

func TestADamagedPartIsNotGoneOnWith(t *testing.T) {
	s := open1(t)
	layer := noise(t, 300_000)
	s.push(t, "one", layer)
	digest, _ := layer.Digest()
	size, _ := layer.Size()
	for what, left := range map[string][]byte{
		"too long":  bytes.Repeat([]byte("x"), int(size)+1),
		"all wrong": bytes.Repeat([]byte("x"), int(size)),
	} {
		cache := newCache(t)
		must(t, os.MkdirAll(filepath.Dir(cache.path(digest)), 0o700))
		must(t, os.WriteFile(cache.path(digest)+partial, left, 0o600))
		if _, err := s.get(t, "one", cache); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Of a part that is wrong we learn at the end, and then it goes.
	cache := newCache(t)
	must(t, os.MkdirAll(filepath.Dir(cache.path(digest)), 0o700))
	must(t, os.WriteFile(cache.path(digest)+partial, []byte("wrong"), 0o600))
	if _, err := s.get(t, "one", cache); banger.CodeOf(err) != banger.BadRequest {
		t.Errorf("the first: %v", err)
	}
	if _, err := s.get(t, "one", cache); err != nil {
		t.Errorf("the second: %v", err)
	}
}

func TestADamagedBlobOfTheCacheIsNoticedAndFetchedAgain(t *testing.T) {
	s := open1(t)
	layer := noise(t, 300_000)
	s.push(t, "one", layer)
	digest, _ := layer.Digest()
	cache := newCache(t)
	_, err := s.get(t, "one", cache)
	must(t, err)
	b, err := os.ReadFile(cache.path(digest))
	must(t, err)
	for _, at := range []int{0, 20, len(b) / 2, len(b) - 1} {
		b[at] ^= 1
		must(t, os.WriteFile(cache.path(digest), b, 0o600))
		b[at] ^= 1
		if _, err := s.get(t, "one", cache); banger.CodeOf(err) != banger.Conflict {
			t.Errorf("byte %d: %v", at, err)
		}
		if _, err := s.get(t, "one", cache); err != nil {
			t.Errorf("byte %d, again: %v", at, err)
		}
	}
}

func TestAMovedTagChangesNothingOfAPullUnderWay(t *testing.T) {
	s := open1(t)
	s.push(t, "one", layerOf(t, "a", "old"))
	ref, _ := Parse(s.host + "/one")
	cache := newCache(t)
	img, err := Find(t.Context(), ref, banger.Access{}, cache)
	must(t, err)
	s.push(t, "one", layerOf(t, "a", "new"))
	if got, err := contents(t, img, cache); err != nil || got[0] != "a=old" {
		t.Errorf("%q %v", got, err)
	}
}

func TestPruneRemovesWhatNobodyKeeps(t *testing.T) {
	s := open1(t)
	kept, gone := layerOf(t, "a", "1"), layerOf(t, "b", "2")
	s.push(t, "one", kept, gone)
	cache := newCache(t)
	_, err := s.get(t, "one", cache)
	must(t, err)
	digest, _ := kept.Digest()
	keep := func(d string) bool { return d == digest.String() }
	dry, would, err := cache.Prune(keep, true)
	must(t, err)
	n, bytes, err := cache.Prune(keep, false)
	if err != nil || n != 2 || n != dry || bytes != would || bytes == 0 { // a layer and the configuration
		t.Errorf("%d blobs, %d bytes (dry %d, %d): %v", n, bytes, dry, would, err)
	}
	left, _ := os.ReadDir(filepath.Join(cache.Dir, "sha256"))
	if len(left) != 1 || left[0].Name() != digest.Hex {
		t.Errorf("left: %v", left)
	}
	if n, _, err := (Cache{Dir: t.TempDir()}).Prune(keep, false); n != 0 || err != nil {
		t.Errorf("of an empty cache: %d, %v", n, err)
	}
}

func TestNamesAreMadeOfReferences(t *testing.T) {
	for ref, want := range map[string][2]string{
		"alpine":                              {"alpine", "docker.io/library/alpine:latest"},
		"alpine:3.20":                         {"alpine-3.20", "docker.io/library/alpine:3.20"},
		"registry.example/org/app:v1":         {"app-v1", "registry.example/org/app:v1"},
		"localhost:5000/a/b/c":                {"c", "localhost:5000/a/b/c:latest"},
		"x@sha256:" + strings.Repeat("a", 64): {"x-aaaaaaaaaaaa", "docker.io/library/x@sha256:" + strings.Repeat("a", 64)},
	} {
		r, err := Parse(ref)
		if err != nil || r.ImageName() != want[0] || r.String() != want[1] {
			t.Errorf("%s: %s and %s, %v", ref, r.ImageName(), r, err)
		}
	}
	for _, ref := range []string{"", "UPPER", "a b", "a:b:c", "x@sha256:short"} {
		if _, err := Parse(ref); banger.CodeOf(err) != banger.BadRequest {
			t.Errorf("%q: %v", ref, err)
		}
	}
}

func TestAHostThatFailsIsNotALayerThatIsWrong(t *testing.T) {
	s, cache := open1(t), newCache(t)
	s.push(t, "one", layerOf(t, "a", "1"))
	ref, _ := Parse(s.host + "/one")
	img, err := Find(t.Context(), ref, banger.Access{}, cache)
	must(t, err)
	must(t, img.Fetch(t.Context(), cache, img.Layers[0]))
	full := &fs.PathError{Op: "write", Path: "/x", Err: syscall.ENOSPC}
	err = img.Unpack(t.Context(), cache, img.Layers[0], func(io.Reader) error { return fmt.Errorf("cannot unpack: %w", full) })
	if !errors.Is(err, syscall.ENOSPC) || banger.CodeOf(err) != banger.Internal || strings.Contains(err.Error(), "refused") {
		t.Errorf("a full disk: %s, %v", banger.CodeOf(err), err)
	}
	// A prune may come between.
	must(t, os.Remove(cache.path(img.Layers[0].Digest)))
	err = img.Unpack(t.Context(), cache, img.Layers[0], func(io.Reader) error { return nil })
	if banger.CodeOf(err) != banger.Conflict {
		t.Errorf("a layer that is gone: %s, %v", banger.CodeOf(err), err)
	}
}
