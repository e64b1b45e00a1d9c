package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"banger"
	"banger/internal/artifact"
)

// Unfinished lists what a crash left: the directories of builds that nobody is at
// work on, and copies that no record knows yet. Of a copy that is being made nobody
// can tell.
func (b Builder) Unfinished() ([]string, error) {
	dirs, err := b.builds()
	return append(dirs, b.copies()...), err
}

func (b Builder) builds() (dirs []string, all error) {
	names, _ := filepath.Glob(filepath.Join(b.Dir, ".build-*"))
	for _, dir := range names {
		locked, err := artifact.Locked(b.lockOf(dir))
		if err == nil && !locked {
			dirs = append(dirs, dir)
		}
		all = errors.Join(all, err)
	}
	return dirs, all
}

// copies are the files of promotions that got no further, and parts of files.
func (b Builder) copies() (paths []string) {
	entries, _ := os.ReadDir(b.Dir)
	for _, e := range entries {
		dir := filepath.Join(b.Dir, e.Name())
		if !banger.IsID(e.Name()) {
			continue
		}
		parts, _ := filepath.Glob(filepath.Join(dir, ".tmp-*"))
		paths = append(paths, parts...)
		if _, r, err := Load(dir); err == nil && r.Registered != nil {
			whole, _ := filepath.Glob(filepath.Join(dir, "[^.]*.ext4"))
			paths = append(paths, whole...)
		}
	}
	return paths
}

// Sweep removes what is unfinished. No image may be registered or promoted
// meanwhile.
func (b Builder) Sweep() error {
	dirs, all := b.builds()
	for _, dir := range dirs {
		unlock, mine, err := artifact.TryLock(b.lockOf(dir))
		if mine {
			err = clearBuild(dir)
			unlock()
		}
		all = errors.Join(all, err)
	}
	entries, _ := os.ReadDir(b.Dir)
	for _, e := range entries {
		if banger.IsID(e.Name()) { // of a registration that got no further
			_ = os.Remove(filepath.Join(b.Dir, e.Name())) // which one with a record in it withstands
		}
	}
	for _, path := range b.copies() {
		all = errors.Join(all, os.Remove(path))
	}
	return all
}

// lockOf is the lock that the builder of a directory holds.
func (b Builder) lockOf(dir string) string {
	return filepath.Join(b.Dir, ".lock-"+strings.TrimPrefix(filepath.Base(dir), ".build-"))
}

// Lost lists the images in the directory that known, ids of rows, does not
// have: one whose row was not written yet when a crash came, or was lost. A
// Build of its name takes it up again.
func (b Builder) Lost(known map[string]bool) (lost []Record, err error) {
	entries, err := os.ReadDir(b.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if _, r, err := Load(filepath.Join(b.Dir, e.Name())); err == nil && r.ID == e.Name() && !known[r.ID] {
			lost = append(lost, r)
		}
	}
	return lost, err
}
