package template

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"banger"
	"banger/internal/artifact"
)

// Cache is the directory of templates. It has no state of its own: any number
// of processes may use one.
type Cache struct{ Dir string }

// Names that are no templates begin with a dot.
const (
	newPrefix  = ".new-"  // being made, or being removed
	specPrefix = ".spec-" // what a maker is to make
	lockName   = ".lock"  // held by the maker and by whoever removes
)

func (c Cache) lock(ctx context.Context) (unlock func(), err error) {
	return artifact.Lock(ctx, filepath.Join(c.Dir, lockName))
}

// Get reads a template's record: not_found where there is none.
func (c Cache) Get(id string) (Template, error) {
	t := Template{ID: id, Dir: filepath.Join(c.Dir, id)}
	info, err := os.Stat(t.Dir)
	if err == nil {
		t.UsedAt = info.ModTime()
		var text []byte
		if text, err = os.ReadFile(t.record()); err == nil {
			err = json.Unmarshal(text, &t)
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return t, banger.Errorf(banger.NotFound, "there is no template %s", id)
	}
	return t, banger.Wrap(err, "cannot read the template %s", id)
}

// use notes that the template was forked.
func (c Cache) use(t Template) { _ = os.Chtimes(t.Dir, time.Time{}, time.Now()) }

// List gives all templates, the one used last first. A directory without a
// record that can be read is in it too, to be removed.
func (c Cache) List() ([]Template, error) {
	entries, err := os.ReadDir(c.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all []Template
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		t, err := c.Get(e.Name())
		if err != nil || t.Size == 0 {
			t.Size = blocks(t.Dir)
		}
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b Template) int { return b.UsedAt.Compare(a.UsedAt) })
	return all, err
}

// blocks is what the files of a directory take on the host.
func blocks(dir string) (n int64) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				n += st.Blocks * 512
			}
		}
	}
	return n
}

// Remove removes a template, in one step for those who look. One that is not
// there is no error.
func (c Cache) Remove(id string) error {
	dir := filepath.Join(c.Dir, id)
	away := filepath.Join(c.Dir, newPrefix+banger.NewID())
	if err := os.Rename(dir, away); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("cannot remove the template %s: %w", id, err)
	}
	return os.RemoveAll(away)
}

// Limits of the cache.
const (
	MaxTemplates = 8
	MaxBytes     = 10 << 30
)

// surplus is what goes when nothing above the limits may stay: those that
// were used the longest time ago.
func surplus(newestFirst []Template) []Template {
	var size int64
	for i, t := range newestFirst {
		size += t.Size
		if i >= MaxTemplates || size > MaxBytes {
			return newestFirst[i:]
		}
	}
	return nil
}

// trim keeps the cache within its limits.
func (c Cache) trim() error {
	all, err := c.List()
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range surplus(all) {
		errs = append(errs, c.Remove(t.ID))
	}
	return errors.Join(errs...)
}

// Prune removes the templates that are not in use, and says which. With dry it
// only says so.
func (c Cache) Prune(inUse func(Template) bool, dry bool) ([]Template, error) {
	all, err := c.List()
	if err != nil {
		return nil, err
	}
	free := slices.DeleteFunc(all, inUse)
	var errs []error
	for _, t := range free {
		if !dry {
			errs = append(errs, c.Remove(t.ID))
		}
	}
	return free, errors.Join(errs...)
}

// Unfinished lists what makers left that were killed; nothing while one works.
func (c Cache) Unfinished() (paths []string, err error) {
	if locked, err := artifact.Locked(filepath.Join(c.Dir, lockName)); err != nil || locked {
		return nil, err
	}
	for _, prefix := range []string{newPrefix, specPrefix} {
		found, _ := filepath.Glob(filepath.Join(c.Dir, prefix+"*"))
		paths = append(paths, found...)
	}
	return paths, nil
}

// Sweep removes what is unfinished.
func (c Cache) Sweep() error {
	if left, err := c.Unfinished(); err != nil || len(left) == 0 {
		return err
	}
	unlock, mine, err := artifact.TryLock(filepath.Join(c.Dir, lockName))
	if !mine {
		return err
	}
	defer unlock()
	return c.sweep("")
}

// sweep removes what makers left that were killed. The caller has the lock.
func (c Cache) sweep(except string) error {
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(c.Dir, e.Name())
		if path == except || !strings.HasPrefix(e.Name(), newPrefix) && !strings.HasPrefix(e.Name(), specPrefix) {
			continue
		}
		errs = append(errs, os.RemoveAll(path))
	}
	return errors.Join(errs...)
}
