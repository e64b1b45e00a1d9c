package kernel

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"banger"
	"banger/internal/artifact"
)

// flip changes one bit in the middle of a file.
func flip(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFlippedBitIsFoundAndAnotherImportMendsIt(t *testing.T) {
	for _, file := range []string{vmlinuzFile, vmlinuxFile, modulesFile, "early/order"} {
		s := testStore(t)
		dir := testKernelDir(t)
		k := mustImport(t, s, "mine", dir)
		if _, _, err := Initramfs(t.Context(), k, []byte("agent")); err != nil {
			t.Fatal(err)
		}
		if err := Verify(t.Context(), k); err != nil {
			t.Fatalf("whole: %v", err)
		}
		flip(t, filepath.Join(k.Dir, file))
		if err := Verify(t.Context(), k); banger.CodeOf(err) != banger.Conflict {
			t.Errorf("%s flipped: %v", file, err)
		}
		again := mustImport(t, s, "mine", dir)
		if again.Digest != k.Digest {
			t.Errorf("the digest is another: %s", again.Digest)
		}
		if err := Verify(t.Context(), again); err != nil {
			t.Errorf("%s mended: %v", file, err)
		}
	}
}

// Somebody may be killed at any moment, and what is being built goes with the sweep.
func TestADamagedKernelStaysUntilAnotherIsInItsPlace(t *testing.T) {
	s, dir := testStore(t), testKernelDir(t)
	k := mustImport(t, s, "mine", dir)
	flip(t, filepath.Join(k.Dir, modulesFile))
	done, gone := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-done:
				gone <- n
				return
			default:
				if _, err := os.Stat(k.Dir); err != nil {
					n++
				}
			}
		}
	}()
	mustImport(t, s, "mine", dir)
	close(done)
	if n := <-gone; n > 0 {
		t.Errorf("%d times there was neither", n)
	}
	if err := Verify(t.Context(), k); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(filepath.Join(s.dir, "building")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestSweepTakesWhatACrashLeft(t *testing.T) {
	s := testStore(t)
	k := mustImport(t, s, "mine", testKernelDir(t))
	left := []string{filepath.Join(s.dir, "building", "other"), filepath.Join(s.downloads, ".tmp-kernel-1"), filepath.Join(s.downloads, ".tmp-held-kernel-1")}
	for _, dir := range left {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	fresh := filepath.Join(s.downloads, ".tmp-kernel-2")
	longAgo := time.Now().Add(-2 * time.Hour)
	if err := errors.Join(os.Chtimes(left[1], longAgo, longAgo), os.Mkdir(fresh, 0o700)); err != nil {
		t.Fatal(err)
	}
	held, err := artifact.NewScratch(s.downloads, "deb") // one of this name would sweep its like
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	unlock, err := artifact.Lock(context.Background(), s.lockPath("other"))
	if err != nil {
		t.Fatal(err)
	}
	if found, err := s.Unfinished(); err != nil || len(found) > 0 {
		t.Errorf("in use: %v, %v", found, err)
	}
	unlock()
	if found, err := s.Unfinished(); err != nil || len(found) != 3 {
		t.Errorf("unfinished: %v, %v", found, err)
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range left {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is still there", dir)
		}
	}
	for _, dir := range []string{fresh, held.Dir} {
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("a download that goes on lost its directory: %v", err)
		}
	}
	if err := Verify(t.Context(), k); err != nil {
		t.Error(err)
	}
}
