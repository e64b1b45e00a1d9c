package layers

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"banger"
)

// canClone says whether copies share blocks here: then nothing is ever frozen.
func canClone(t *testing.T) bool {
	t.Helper()
	dir := disk(t)
	cloned, err := clone(filepath.Join(dir, baseName), filepath.Join(dir, "clone"))
	if err != nil {
		t.Fatal(err)
	}
	return cloned
}

// sameFiles lists which files two directories have in common.
func sameFiles(t *testing.T, a, b string) (names []string) {
	t.Helper()
	files, err := filesOf(a)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		one, err1 := os.Stat(filepath.Join(a, name))
		two, err2 := os.Stat(filepath.Join(b, name))
		if err1 == nil && err2 == nil && os.SameFile(one, two) {
			names = append(names, name)
		}
	}
	return names
}

func wantShared(t *testing.T, a, b string, want ...string) {
	t.Helper()
	if got := sameFiles(t, a, b); !slices.Equal(got, want) {
		t.Errorf("they have %q in common, want %q", got, want)
	}
}

func TestTopWithLittleDataIsCopied(t *testing.T) {
	never := func(string) error { t.Error("it was frozen"); return nil }
	for layers := range 3 {
		dir, to := disk(t), t.TempDir()
		var names []string
		for range layers {
			names = append(names, layer(t, dir))
		}
		want := content(t, dir)
		if err := Take(t.Context(), dir, to, layers == 1, never); err != nil {
			t.Fatal(err)
		}
		wantContent(t, to, want)
		files := append([]string{baseName}, names...)
		wantNames(t, to, files...)
		wantNames(t, dir, files...)
		wantShared(t, dir, to, files[:layers]...)
	}
}

func TestTopWithMuchDataIsFrozen(t *testing.T) {
	if canClone(t) {
		t.Skip("this file system clones it instead")
	}
	for _, writable := range []bool{false, true} {
		dir, to := disk(t), t.TempDir()
		reserve(t, filepath.Join(dir, layer(t, dir)), copyLimit+1)
		want := content(t, dir)
		frozen := ""
		err := Take(t.Context(), dir, to, writable, func(name string) error {
			frozen = name
			wantContent(t, dir, want) // it is there
			wantNames(t, to)
			return nil
		})
		if err != nil || frozen != "disk.2.qcow2" {
			t.Fatalf("frozen %q, %v", frozen, err)
		}
		wantContent(t, to, want)
		wantShared(t, dir, to, "disk.ext4", "disk.1.qcow2")
		wantNames(t, dir, "disk.ext4", "disk.1.qcow2", "disk.2.qcow2")
		if writable {
			wantNames(t, to, "disk.ext4", "disk.1.qcow2", "disk.2.qcow2")
		} else {
			wantNames(t, to, "disk.ext4", "disk.1.qcow2")
		}
	}
}

func TestDiskWithoutAMachineIsFrozenByALayer(t *testing.T) {
	if canClone(t) {
		t.Skip("this file system clones it instead")
	}
	dir, one, two := disk(t), t.TempDir(), t.TempDir()
	reserve(t, filepath.Join(dir, baseName), copyLimit+1)
	want := content(t, dir)
	for _, to := range []string{one, two} {
		if err := Take(t.Context(), dir, to, true, nil); err != nil {
			t.Fatal(err)
		}
		wantContent(t, to, want)
		wantNames(t, to, "disk.ext4", "disk.1.qcow2")
		wantShared(t, dir, to, "disk.ext4")
	}
	wantNames(t, dir, "disk.ext4", "disk.1.qcow2") // the second time that was copied
	wantShared(t, one, two, "disk.ext4")
}

// A layer that the machine does not use may not stay on top; one that it may
// have used has to.
func TestFailedFreezeLeavesNoLayerThatIsNotWritten(t *testing.T) {
	if canClone(t) {
		t.Skip("this file system clones it instead")
	}
	for _, c := range []struct {
		err  error
		left []string
	}{
		{banger.Errorf(banger.Unavailable, "no"), []string{"disk.ext4"}},
		{errors.New("no"), []string{"disk.ext4"}},
		{banger.Errorf(banger.NotRunning, "it has ended"), []string{"disk.ext4", "disk.1.qcow2"}},
	} {
		dir, to := disk(t), t.TempDir()
		reserve(t, filepath.Join(dir, baseName), copyLimit+1)
		want := content(t, dir)
		if err := Take(t.Context(), dir, to, true, func(string) error { return c.err }); !errors.Is(err, c.err) {
			t.Errorf("error %v, want %v", err, c.err)
		}
		wantNames(t, dir, c.left...)
		wantNames(t, to)
		wantContent(t, dir, want)
	}
}

func TestTakeLeavesADiskThatIsThereAlone(t *testing.T) {
	dir := disk(t)
	for _, name := range []string{"disk.ext4", "disk.7.qcow2"} {
		to := t.TempDir()
		if err := os.WriteFile(filepath.Join(to, name), []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Take(t.Context(), dir, to, true, nil); banger.CodeOf(err) != banger.AlreadyExists {
			t.Errorf("%s: %v", name, err)
		}
		wantNames(t, to, name)
	}
	empty := t.TempDir()
	if err := Take(t.Context(), t.TempDir(), empty, true, nil); banger.CodeOf(err) != banger.NotFound {
		t.Errorf("without a disk: %v", err)
	}
	wantNames(t, empty)
}

func TestFailedTakeLeavesNothing(t *testing.T) {
	dir, to := disk(t), t.TempDir()
	layer(t, dir)
	layer(t, dir)
	// It is found out after the top was copied: nobody links a directory.
	if err := errors.Join(os.Remove(filepath.Join(dir, "disk.1.qcow2")), os.Mkdir(filepath.Join(dir, "disk.1.qcow2"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := Take(t.Context(), dir, to, true, nil); err == nil {
		t.Error("it took a directory")
	}
	wantNames(t, to)
}

func TestTakenDisksAreTakenAgainAndMadeOneFile(t *testing.T) {
	dir := disk(t)
	for n := range 6 {
		layer(t, dir)
		want := content(t, dir)
		to := t.TempDir()
		if err := Take(t.Context(), dir, to, n%2 == 0, nil); err != nil {
			t.Fatal(err)
		}
		wantContent(t, to, want)
		if n == 3 {
			if err := Flatten(t.Context(), to); err != nil {
				t.Fatal(err)
			}
			wantContent(t, to, want)
			wantContent(t, dir, want)
		}
		dir = to
	}
}
