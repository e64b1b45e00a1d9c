// Package layers holds the disk of a VM: a raw file, and above it layers that
// each hold what was written since the one below was frozen.
//
// The directory is the truth: the base disk.ext4 and the layers disk.1.qcow2,
// disk.2.qcow2 and so on. The one with the highest number takes the writes, or
// the base where there is none. All below are never written again, and other
// directories may have hard links to them. An empty layer on top changes
// nothing, so that a crash between making one and using it does no harm.
//
// The package knows nothing of what is on a disk, of machines or of who owns a
// directory; nobody may use one while the package works on it, but for what
// Take says.
package layers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/ext4"
)

const baseName = "disk.ext4"

// layerName is the name of the layer with this number, from 1.
func layerName(number int) string { return fmt.Sprintf("disk.%d.qcow2", number) }

// layerNumber is 0 where name is no layer's.
func layerNumber(name string) int {
	text, _ := strings.CutPrefix(name, "disk.")
	text, _ = strings.CutSuffix(text, ".qcow2")
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || name != layerName(n) {
		return 0
	}
	return n
}

// Of lists the disk in dir: its base, and the layers above it, lowest first.
// Names are relative to dir. A directory without a base is not_found.
func Of(dir string) (base string, overlays []string, err error) {
	files, err := diskFiles(dir)
	if err != nil {
		return "", nil, err
	}
	if len(files) == 0 || files[0] != baseName {
		return "", nil, banger.Errorf(banger.NotFound, "there is no disk in %s", dir)
	}
	return files[0], files[1:], nil
}

// diskFiles lists what there is of a disk in dir, lowest first.
func diskFiles(dir string) (files []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, banger.Wrap(err, "cannot look for a disk")
	}
	for _, e := range entries {
		if e.Name() == baseName || layerNumber(e.Name()) > 0 {
			files = append(files, e.Name())
		}
	}
	slices.SortFunc(files, func(a, b string) int { return layerNumber(a) - layerNumber(b) })
	return files, nil
}

// filesOf lists all files of the disk in dir, lowest first.
func filesOf(dir string) ([]string, error) {
	base, overlays, err := Of(dir)
	if err != nil {
		return nil, err
	}
	return append([]string{base}, overlays...), nil
}

// New makes an empty layer on top of the disk in dir, as large as the disk, and
// gives its name.
func New(dir string) (name string, err error) {
	name, size, err := next(dir)
	if err != nil {
		return "", err
	}
	return name, CreateOverlay(filepath.Join(dir, name), size)
}

// next is the name and size of the layer to come.
func next(dir string) (name string, size int64, err error) {
	_, overlays, err := Of(dir)
	if err != nil {
		return "", 0, err
	}
	number := 0
	if n := len(overlays); n > 0 {
		number = layerNumber(overlays[n-1])
	}
	size, err = Size(dir)
	return layerName(number + 1), size, err
}

// Size is how large the disk in dir is to its VM.
func Size(dir string) (int64, error) {
	files, err := filesOf(dir)
	if err != nil {
		return 0, err
	}
	size, err := sizeOf(filepath.Join(dir, files[len(files)-1]))
	return size, banger.Wrap(err, "cannot tell the size of the disk")
}

func sizeOf(path string) (int64, error) {
	if layerNumber(filepath.Base(path)) > 0 {
		return overlaySize(path)
	}
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Grow makes the disk in dir, which no VMM has open, at least size bytes large.
// It is never made smaller.
func Grow(dir string, size int64) error {
	files, err := filesOf(dir)
	if err != nil {
		return err
	}
	top := filepath.Join(dir, files[len(files)-1])
	if len(files) == 1 {
		return ext4.Grow(top, size)
	}
	return banger.Wrap(growOverlay(top, size), "cannot grow a disk")
}

func allocated(path string) (int64, error) {
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return s.Blocks * 512, nil
}

// links is how many names a file has.
func links(path string) (uint64, error) {
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return uint64(s.Nlink), nil
}

// remove removes files of dir, and says what could not be removed.
func remove(dir string, names ...string) (err error) {
	for _, name := range names {
		if e := os.Remove(filepath.Join(dir, name)); !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}
