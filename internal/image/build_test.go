package image

import (
	"archive/tar"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"banger"

	"golang.org/x/sys/unix"
)

// The real thing: Debian from this host's package sources, with mmdebstrap.

func realBuild(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("builds a Debian image; run without -short")
	}
	if _, err := buildMode(); err != nil {
		t.Skip(err)
	}
}

// scratchIn makes builds use a scratch directory of the test's own.
func scratchIn(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "banger-test-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv("TMPDIR", dir)
	return dir
}

func wantOnly(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != strings.Join(want, " ") {
		t.Errorf("%s holds %q instead of %q", dir, got, want)
	}
}

func TestTwoBuildsOfOneNameMakeOneSoundImage(t *testing.T) {
	realBuild(t)
	root := t.TempDir() // before TMPDIR changes
	scratch := scratchIn(t)
	var mu sync.Mutex
	written := 0
	progress := func(stage string) {
		mu.Lock()
		defer mu.Unlock()
		if stage == "writing the file system" {
			written++
		}
	}
	var wg sync.WaitGroup
	images := make([]banger.Image, 2)
	for i := range images {
		wg.Go(func() {
			var err error
			if images[i], err = (Builder{Dir: root}).Build(context.Background(), banger.DefaultImage, banger.Access{}, progress); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	if written != 1 || images[0].ID != images[1].ID {
		t.Errorf("built %d times, images %s and %s", written, images[0].ID, images[1].ID)
	}
	wantOnly(t, scratch)
	wantOnly(t, root, ".lock-"+banger.DefaultImage, images[0].ID)
	if err := Verify(context.Background(), images[0].ArtifactDir); err != nil {
		t.Error(err)
	}
	_, record, err := Load(images[0].ArtifactDir)
	if err != nil || record.Packages < 100 || record.SizeBytes < 100<<20 {
		t.Errorf("record %+v, %v", record, err)
	}
}

func TestCancelledBuildLeavesNothing(t *testing.T) {
	realBuild(t)
	root := t.TempDir() // before TMPDIR changes
	scratch := scratchIn(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err := Builder{Dir: root}.Build(ctx, banger.DefaultImage, banger.Access{}, func(stage string) {
		if stage == "configuring the base system" {
			cancel()
		}
	})
	if banger.CodeOf(err) != banger.Cancelled {
		t.Errorf("error %v", err)
	}
	wantOnly(t, scratch)
	wantOnly(t, root, ".lock-"+banger.DefaultImage)
}

const crashDir = "BANGER_TEST_CRASH_DIR"

// TestCrashingBuild is not a test but the process that another one kills.
func TestCrashingBuild(t *testing.T) {
	dir := os.Getenv(crashDir)
	if dir == "" {
		t.Skip("runs only as a child of TestKilledBuildIsClearedByTheNext")
	}
	_, err := Builder{Dir: dir}.Build(context.Background(), banger.DefaultImage, banger.Access{}, func(stage string) {
		if stage == "configuring the base system" {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		}
	})
	t.Errorf("survived: %v", err)
}

func TestKilledBuildIsClearedByTheNext(t *testing.T) {
	realBuild(t)
	root := t.TempDir() // before TMPDIR changes
	scratch := scratchIn(t)
	child := exec.Command(os.Args[0], "-test.run=^TestCrashingBuild$")
	child.Env = append(os.Environ(), crashDir+"="+root)
	if out, err := child.CombinedOutput(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("%v\n%s", err, out)
	}
	// The next build gets the lock when the last process of the first has
	// ended; stopping it at once shows what is left then.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err := Builder{Dir: root}.Build(ctx, banger.DefaultImage, banger.Access{}, func(string) {
		wantOnly(t, scratch)
		cancel()
	})
	if banger.CodeOf(err) != banger.Cancelled {
		t.Errorf("error %v", err)
	}
	wantOnly(t, root, ".lock-"+banger.DefaultImage)
}

func TestBuildWithoutMmdebstrapSaysWhatToInstall(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := buildMode()
	if banger.CodeOf(err) != banger.Unavailable || !strings.Contains(strings.Join(banger.HintsOf(err), " "), "apt install mmdebstrap") {
		t.Errorf("%v, hints %q", err, banger.HintsOf(err))
	}
}

// Another system has no apt, or no Debian bookworm among its sources.
func TestAHostWithoutSourcesGetsTheImageOfARegistry(t *testing.T) {
	s := openShop(t)
	s.push(t, "debian:bookworm", imageOf(t, layerOf(t, link(tar.TypeSymlink, "bin", "usr/bin"))))
	t.Setenv("PATH", filepath.Join(t.TempDir(), "empty"))
	b := newBuilder(t)
	b.Instead = s.host + "/debian:bookworm"
	var stages []string
	img, err := b.Build(t.Context(), banger.DefaultImage, banger.Access{}, func(stage string) { stages = append(stages, stage) })
	if err != nil {
		t.Fatal(err)
	}
	_, r, err := Load(img.ArtifactDir)
	if err != nil || r.Name != banger.DefaultImage || r.Ref != b.Instead || !r.Catalogue || !r.Again() {
		t.Errorf("%+v, %v", r, err)
	}
	if !strings.Contains(strings.Join(stages, "\n"), "has no package sources for "+banger.DefaultImage) {
		t.Errorf("nothing of it in %q", stages)
	}
	if got := b.RefOf(banger.DefaultImage); got != banger.DefaultImage {
		t.Errorf("it would be got again as %s", got)
	}
	// By another name it stands for nothing but itself, least of all for a stranger's of that name.
	if err := Rename(img.ArtifactDir, "mine"); err != nil {
		t.Fatal(err)
	}
	if got := b.RefOf("mine"); got != b.Instead {
		t.Errorf("renamed, it would be got again as %s", got)
	}
}
