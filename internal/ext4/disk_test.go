package ext4

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func mustEmpty(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "empty.ext4")
	if err := MakeEmpty(context.Background(), path, 1<<30); err != nil {
		t.Fatal(err)
	}
	return path
}

func usedBytes(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

func TestEmptyDiskIsSmallSoundAndLeavesTheGuestNothingToZero(t *testing.T) {
	path := mustEmpty(t)
	if used := usedBytes(t, path); used > 8<<20 {
		t.Errorf("it takes %d bytes", used)
	}
	fsck, err := lookTool("e2fsck")
	if err != nil {
		t.Skip("e2fsck is not installed")
	}
	if out, err := exec.Command(fsck, "-fn", path).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
	dumpe2fs, err := lookTool("dumpe2fs")
	if err != nil {
		t.Skip("dumpe2fs is not installed")
	}
	out, err := exec.Command(dumpe2fs, path).Output()
	if err != nil {
		t.Fatal(err)
	}
	if groups, zeroed := bytes.Count(out, []byte(": (Blocks ")), bytes.Count(out, []byte("ITABLE_ZEROED")); groups != 8 || zeroed != 8 {
		t.Errorf("%d of %d groups need no zeroing", zeroed, groups)
	}
}

// The kernel wants a journal credit for each block reserved for group
// descriptors when it grows a file system, and grants a quarter of the
// journal. With the most that can be reserved, 1024, growing failed.
// 128 GiB take 16 blocks, of which one is in use.
func TestEmptyDiskHasRoomToGrowThatItsJournalAllows(t *testing.T) {
	stats := debugfs(t, mustEmpty(t), "stats")
	_, after, found := strings.Cut(stats, "Reserved GDT blocks:")
	reserved, err := strconv.Atoi(strings.Fields(after + " ?")[0])
	if !found || err != nil || reserved != 15 {
		t.Errorf("%d blocks are reserved, in:\n%s", reserved, stats)
	}
}

func TestCopyKeepsContentAndHoles(t *testing.T) {
	src := mustEmpty(t)
	dst := filepath.Join(t.TempDir(), "disk.ext4")
	if err := Copy(context.Background(), src, dst); err != nil {
		t.Fatal(err)
	}
	a, _ := os.ReadFile(src)
	b, _ := os.ReadFile(dst)
	if !bytes.Equal(a, b) {
		t.Error("the copy differs")
	}
	if used := usedBytes(t, dst); used > 8<<20 {
		t.Errorf("the copy takes %d bytes", used)
	}
}

func TestCopyNeverOverwrites(t *testing.T) {
	src := mustEmpty(t)
	dst := filepath.Join(t.TempDir(), "disk.ext4")
	if err := os.WriteFile(dst, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Copy(context.Background(), src, dst); !errors.Is(err, fs.ErrExist) {
		t.Errorf("error %v", err)
	}
	if b, _ := os.ReadFile(dst); string(b) != "precious" {
		t.Errorf("it now holds %q", b)
	}
}

func TestCancelledCopyLeavesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	dst := filepath.Join(t.TempDir(), "disk.ext4")
	err := Copy(ctx, mustEmpty(t), dst)
	if _, statErr := os.Stat(dst); err != nil && !errors.Is(statErr, fs.ErrNotExist) {
		t.Errorf("after %v: %v", err, statErr)
	}
}

func TestGrowNeverShrinks(t *testing.T) {
	path := mustEmpty(t)
	for _, c := range []struct{ ask, want int64 }{{8 << 30, 8 << 30}, {2 << 30, 8 << 30}} {
		if err := Grow(path, c.ask); err != nil {
			t.Fatal(err)
		}
		if info, _ := os.Stat(path); info.Size() != c.want {
			t.Errorf("asked for %d it has %d bytes", c.ask, info.Size())
		}
	}
}
