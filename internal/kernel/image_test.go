package kernel

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/oci"
)

// tarOf packs files by name, in the order of a list of name and content.
func tarOf(t *testing.T, files ...string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		h := &tar.Header{Name: files[i], Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(files[i+1]))}
		if target, ok := strings.CutPrefix(files[i+1], "-> "); ok {
			h = &tar.Header{Name: files[i], Typeflag: tar.TypeSymlink, Linkname: target}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(w, files[i+1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// modulesTar is /kernel.tar of the kernel that testKernelDir lays out.
func modulesTar(t *testing.T) string {
	t.Helper()
	var files []string
	dir := testKernelDir(t)
	err := fs.WalkDir(os.DirFS(dir), "lib", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(filepath.Join(dir, path))
		files = append(files, path, string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tarOf(t, append(files, "lib/modules/"+testRelease+"/build", "-> /usr/src/linux")...)
}

// offerKernel puts an image of these layers into a registry on this machine.
func offerKernel(t *testing.T, layers ...string) oci.Ref {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	img := empty.Image
	for _, text := range layers {
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil })
		if err == nil {
			img, err = mutate.AppendLayers(img, layer)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	c, err := img.ConfigFile()
	if err == nil {
		img, err = mutate.ConfigFile(img, &v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: c.RootFS})
	}
	if err != nil {
		t.Fatal(err)
	}
	ref, err := oci.Parse(strings.TrimPrefix(server.URL, "http://") + "/linuxkit/kernel:6.1")
	if err == nil {
		err = remote.Write(ref.Reference, img)
	}
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func (s *Store) pullTestImage(t *testing.T, ref oci.Ref) (banger.Kernel, error) {
	return s.PullImage(t.Context(), ref, "", banger.Access{}, oci.Cache{Dir: t.TempDir()}, false, func(string) {})
}

func TestPullImageGetsTheKernelOfARegistry(t *testing.T) {
	s, bzImage := testStore(t), string(testBzImage(t, "lz4", testVmlinux(t)))
	ref := offerKernel(t, tarOf(t, "kernel", "an older one", "usr/share/doc", "x"), tarOf(t, "kernel", bzImage, "kernel.tar", modulesTar(t)))
	k, err := s.pullTestImage(t, ref)
	if err != nil {
		t.Fatal(err)
	}
	if k.Name != "kernel-6.1" || k.Release != testRelease || !strings.HasPrefix(k.Source, ref.String()+"@sha256:") {
		t.Errorf("got %+v", k)
	}
	// It is the kernel that the same files make by themselves.
	same, err := s.Import(t.Context(), ImportRequest{Name: "files", Dir: testKernelDir(t)})
	if err != nil || same.VmlinuzSHA256 != k.VmlinuzSHA256 || same.ModulesSHA256 != k.ModulesSHA256 {
		t.Errorf("from files it is %+v, %v, not %+v", same, err, k)
	}
	if again, err := s.pullTestImage(t, ref); err != nil || again.Digest != k.Digest {
		t.Errorf("again: %+v, %v", again, err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.downloads, ".tmp-*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestImagesOfNoKernelAreRefused(t *testing.T) {
	bzImage := string(testBzImage(t, "lz4", testVmlinux(t)))
	for name, c := range map[string]struct{ layer, want string }{
		"no kernel":               {tarOf(t, "bin/sh", "x"), "no /kernel.tar"},
		"removed again":           {tarOf(t, "kernel", bzImage, "kernel.tar", modulesTar(t), ".wh.kernel.tar", ""), "no /kernel.tar"},
		"a link":                  {tarOf(t, "kernel", "-> /etc/passwd", "kernel.tar", modulesTar(t)), "/kernel is no plain file"},
		"modules outside":         {tarOf(t, "kernel", bzImage, "kernel.tar", tarOf(t, "lib/modules/../../../../x", "x")), "leads out of it"},
		"modules too deep":        {tarOf(t, "kernel", bzImage, "kernel.tar", tarOf(t, strings.Repeat("d/", 16)+"x.ko", "x")), "of more than 16 parts"},
		"modules of long names":   {tarOf(t, "kernel", bzImage, "kernel.tar", tarOf(t, strings.Repeat("d", 1025), "x")), "of more than 1024 bytes"},
		"a part that is too long": {tarOf(t, "kernel", bzImage, "kernel.tar", tarOf(t, "lib/"+strings.Repeat("d", 256), "x")), "with a part of more than 255"},
		"modules in modules":      {tarOf(t, "kernel", bzImage, "kernel.tar", tarOf(t, "lib/a.ko", "x", "lib/a.ko/b.ko", "x")), "for a file and a directory"},
		"modules cut off":         {tarOf(t, "kernel", bzImage, "kernel.tar", modulesTar(t)[:5000]), "cannot be read"},
		"modules of another":      {tarOf(t, "kernel", bzImage, "kernel.tar", tarOf(t, "lib/modules/5.0/modules.order", "")), testRelease},
		"a kernel that is none":   {tarOf(t, "kernel", "MZ", "kernel.tar", modulesTar(t)), "as a kernel"},
	} {
		t.Run(name, func(t *testing.T) {
			s := testStore(t)
			_, err := s.pullTestImage(t, offerKernel(t, c.layer))
			if banger.CodeOf(err) != banger.BadRequest || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", banger.CodeOf(err), err, c.want)
			}
			all, _ := s.List()
			left, _ := filepath.Glob(filepath.Join(s.downloads, ".tmp-*"))
			if len(all)+len(left) > 0 {
				t.Errorf("left: %v %v", all, left)
			}
		})
	}
}

func TestHostIsTheKernelThatRuns(t *testing.T) {
	s := testStore(t)
	s.host = t.TempDir()
	if _, err := s.Pull(context.Background(), HostKernel, false, banger.Access{}, nil); banger.CodeOf(err) != banger.Unavailable || !strings.Contains(err.Error(), "lib/modules") {
		t.Errorf("without modules: %v", err)
	}
	release := runningRelease(t)
	files := testKernelDir(t)
	modules := filepath.Join(s.host, "lib/modules", release)
	if err := os.MkdirAll(filepath.Dir(modules), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(files, "lib/modules", testRelease), modules); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Pull(context.Background(), HostKernel, false, banger.Access{}, nil); banger.CodeOf(err) != banger.Unavailable || !strings.Contains(err.Error(), "neither in") {
		t.Errorf("without a kernel: %v", err)
	}
	if n := len(s.Available()); n != 1 {
		t.Errorf("%d kernels are available", n)
	}
	if err := os.Rename(filepath.Join(files, "boot/vmlinuz-"+testRelease), filepath.Join(modules, "vmlinuz")); err != nil {
		t.Fatal(err)
	}
	if n := len(s.Available()); n != 2 {
		t.Errorf("%d kernels are available", n)
	}
	k, err := s.Pull(context.Background(), HostKernel, false, banger.Access{}, nil)
	if err != nil || k.Release != testRelease || !strings.Contains(k.Source, "of this host") { // the test's own says it is another
		t.Errorf("got %+v, %v", k, err)
	}
}

func runningRelease(t *testing.T) string {
	t.Helper()
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	return unix.ByteSliceToString(uts.Release[:])
}

// Directories count, whether or not the tar names them.
func TestDirectoriesNobodyNamedCountAsFiles(t *testing.T) {
	var files []string
	for i := range 10 {
		files = append(files, fmt.Sprintf("%d/%sx", i, strings.Repeat("d/", 14)), "")
	}
	path := filepath.Join(t.TempDir(), "kernel.tar")
	if err := os.WriteFile(path, []byte(tarOf(t, files...)), 0o600); err != nil {
		t.Fatal(err)
	}
	err := unpackModules(t.Context(), path, filepath.Join(t.TempDir(), "root"), 100)
	if banger.CodeOf(err) != banger.BadRequest || !strings.Contains(err.Error(), "more than 100 files") {
		t.Error(err)
	}
}

func TestAKernelOfARegistryTakesNoNameOfTheCatalogue(t *testing.T) {
	s := testStore(t)
	for _, name := range []string{banger.DefaultKernel, HostKernel} {
		ref, err := oci.Parse("127.0.0.1:1/x/" + name) // where nobody is
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.PullImage(t.Context(), ref, "", banger.Access{}, oci.Cache{Dir: t.TempDir()}, true, func(string) {})
		if banger.CodeOf(err) != banger.BadRequest || !strings.Contains(err.Error(), "that is the name of the") || !strings.Contains(strings.Join(banger.HintsOf(err), ""), "--name OTHER") {
			t.Errorf("%s: %v %q", name, err, banger.HintsOf(err))
		}
	}
	ref := offerKernel(t, tarOf(t, "kernel", string(testBzImage(t, "lz4", testVmlinux(t))), "kernel.tar", modulesTar(t)))
	k, err := s.PullImage(t.Context(), ref, "mine", banger.Access{}, oci.Cache{Dir: t.TempDir()}, false, func(string) {})
	if err != nil || k.Name != "mine" {
		t.Errorf("%+v, %v", k, err)
	}
}

func TestImagesThatAreTooLargeForAKernelAreRefused(t *testing.T) {
	for _, i := range []oci.Image{{Layers: make([]oci.Layer, maxLayers+1)}, {Layers: []oci.Layer{{Size: maxSent}, {Size: 1}}}} {
		if err := checkSize(&i); banger.CodeOf(err) != banger.BadRequest {
			t.Errorf("%d layers of %d bytes: %v", len(i.Layers), i.Size(), err)
		}
	}
	left := int64(4)
	for _, want := range []banger.Code{"", banger.BadRequest} {
		if _, err := io.ReadAll(&atMost{strings.NewReader("123"), &left}); banger.CodeOf(err) != want {
			t.Errorf("%v, with %d left", err, left)
		}
	}
}
