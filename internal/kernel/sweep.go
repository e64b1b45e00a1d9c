package kernel

import (
	"errors"
	"os"
	"path/filepath"

	"banger/internal/artifact"
)

// Unfinished lists what a crash left of imports and downloads. While anybody is
// at work on a kernel it lists nothing.
func (s *Store) Unfinished() (paths []string, err error) {
	locks, _ := filepath.Glob(filepath.Join(s.dir, "locks", "*"))
	for _, lock := range append(locks, filepath.Join(s.dir, "lock")) {
		if locked, err := artifact.Locked(lock); err != nil || locked {
			return nil, err
		}
	}
	paths, _ = filepath.Glob(filepath.Join(s.dir, "building", "*"))
	return append(paths, artifact.Stale(s.downloads)...), nil // others may use it too
}

// Sweep removes what is unfinished. It is for a time when nobody imports.
func (s *Store) Sweep() error {
	paths, all := s.Unfinished()
	for _, path := range paths {
		if filepath.Dir(path) != s.downloads {
			all = errors.Join(all, os.RemoveAll(path))
		}
	}
	return errors.Join(all, artifact.ClearStale(s.downloads))
}
