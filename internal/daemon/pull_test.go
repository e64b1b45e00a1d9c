package daemon_test

import (
	"archive/tar"
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"banger"
	"banger/internal/api"
)

// offer puts an image with one file at ref.
func offer(t *testing.T, ref, content string) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	must(t, w.WriteHeader(&tar.Header{Name: "said", Mode: 0o644, Size: int64(len(content))}))
	_, err := io.WriteString(w, content)
	must(t, err)
	must(t, w.Close())
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	must(t, err)
	img, err := mutate.AppendLayers(empty.Image, layer)
	must(t, err)
	img, err = mutate.ConfigFile(img, &v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: must1(img.ConfigFile())(t).RootFS})
	must(t, err)
	r, err := name.ParseReference(ref)
	must(t, err)
	must(t, remote.Write(r, img))
}

func must1[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T { t.Helper(); must(t, err); return v }
}

func TestAnImageGoesOnlyWhenThereIsAnotherInItsPlace(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	ref := strings.TrimPrefix(server.URL, "http://") + "/words"
	h := open(t, &fakeVMs{})
	pull := func(force bool) (api.Image, error) {
		return h.client.PullImage(t.Context(), api.PullImage{Ref: ref, Force: force}, nil)
	}
	offer(t, ref, "old")
	old := must1(pull(false))(t)
	offer(t, ref, "new")
	got := must1(pull(true))(t)
	if got.Manifest == old.Manifest || got.ID == old.ID || got.Name != old.Name {
		t.Errorf("%+v instead of %+v", got, old)
	}
	there := func() {
		t.Helper()
		all := must1(h.client.Images(t.Context()))(t)
		dirs := must1(filepath.Glob(h.dirs.Images() + "/[^.]*"))(t)
		if len(all) != 1 || all[0].ID != got.ID || all[0].Manifest != got.Manifest || len(dirs) != 1 || dirs[0] != h.dirs.Image(got.ID) {
			t.Errorf("there is %+v in %q", all, dirs)
		}
	}
	there()
	server.Close()
	if again, err := pull(true); banger.CodeOf(err) != banger.Unavailable {
		t.Errorf("without the registry: %+v, %v", again, err)
	}
	there()
}

func TestAnImageOfARegistryDoesNotTakeTheCataloguesName(t *testing.T) {
	h := open(t, &fakeVMs{})
	ref := "127.0.0.1:1/x/" + banger.DefaultImage // where nobody is
	_, err := h.client.PullImage(t.Context(), api.PullImage{Ref: ref}, nil)
	if banger.CodeOf(err) != banger.BadRequest || !strings.Contains(err.Error(), "the catalogue's own") {
		t.Error(err)
	}
	if _, err := h.client.PullImage(t.Context(), api.PullImage{Ref: ref, Name: "mine"}, nil); banger.CodeOf(err) != banger.Unavailable {
		t.Errorf("under another name: %v", err)
	}
}

func TestAKernelStaysWhileAPullIsToUseIt(t *testing.T) {
	asked, answer := make(chan struct{}, 100), make(chan struct{})
	images := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v2/slow/") && r.Method == http.MethodGet {
			asked <- struct{}{}
			<-answer
		}
		images.ServeHTTP(w, r)
	}))
	defer server.Close()
	ref := strings.TrimPrefix(server.URL, "http://") + "/slow"
	h := open(t, &fakeVMs{})
	offer(t, ref, "content")
	plantKernel(t, h, "mine", "c")
	pulled := make(chan error, 1)
	go func() {
		_, err := h.client.PullImage(t.Context(), api.PullImage{Ref: ref, ImageKernel: api.ImageKernel{KernelRef: "mine"}}, nil)
		pulled <- err
	}()
	<-asked
	if err := h.client.DeleteKernel(t.Context(), "mine"); banger.CodeOf(err) != banger.Busy || !strings.Contains(err.Error(), "the operation image.pull") {
		t.Errorf("during the pull: %v", err)
	}
	close(answer)
	must(t, <-pulled)
	if err := h.client.DeleteKernel(t.Context(), "mine"); banger.CodeOf(err) != banger.Conflict {
		t.Errorf("after the pull: %v", err)
	}
	must(t, h.client.DeleteImage(t.Context(), "slow"))
	must(t, h.client.DeleteKernel(t.Context(), "mine"))
}

func TestAnImageThatIsThereOtherwiseThanAskedForIsRefused(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	ref := strings.TrimPrefix(server.URL, "http://") + "/words"
	h := open(t, &fakeVMs{})
	offer(t, ref, "content")
	plantKernel(t, h, "mine", "c")
	plantKernel(t, h, "other", "d")
	pull := func(ask api.PullImage) error {
		ask.Ref = ref
		_, err := h.client.PullImage(t.Context(), ask, nil)
		return err
	}
	refused := func(ask api.PullImage, what string) {
		t.Helper()
		err := pull(ask)
		if banger.CodeOf(err) != banger.AlreadyExists || !strings.HasSuffix(err.Error(), "it is there with another "+what) || len(banger.HintsOf(err)) != 2 {
			t.Errorf("another %s: %v %q", what, err, banger.HintsOf(err))
		}
	}
	mine, other := api.ImageKernel{KernelRef: "mine"}, api.ImageKernel{KernelRef: "other"}
	must(t, pull(api.PullImage{}))
	refused(api.PullImage{Size: "16G"}, "size")
	refused(api.PullImage{OwnUser: true}, "user")
	refused(api.PullImage{ImageKernel: mine, Size: "16G"}, "size and kernel")
	all := api.PullImage{Size: "16G", OwnUser: true, ImageKernel: mine, Force: true}
	must(t, pull(all))
	all.Force, all.Size = false, "16384M"
	must(t, pull(all)) // the image names no user, and is as it was asked for all the same
	must(t, pull(api.PullImage{}))
	refused(api.PullImage{ImageKernel: other}, "kernel")
}
