package patch

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"banger"
)

// HalfDone is the failure of an apply that could not be taken back, or not yet.
type HalfDone struct{ error }

// Unwrap gives the failure.
func (h HalfDone) Unwrap() error { return h.error }

// undo takes back whatever was done of an apply, in whatever state that is. It
// touches no path that is neither as it was nor as it was to become: somebody
// else's work is there. It can be repeated.
func (a *applying) undo() error {
	var left []string
	var full error
	note := func(c Change, ok bool, err error) {
		switch {
		case isFull(err):
			full = err
		case err != nil || !ok:
			left = append(left, c.Path)
		}
	}
	a.dropNew()
	had := map[string]bool{} // directories that were there before
	for _, c := range a.journal.changes {
		if c.Old.Mode != Absent {
			above(c.Path, had)
		}
	}
	for _, c := range a.journal.changes {
		if c.Old.Mode == Absent {
			ok, err := a.undoNew(c, had)
			note(c, ok, err)
		}
	}
	for _, c := range a.journal.changes {
		if c.Old.Mode != Absent {
			ok, err := a.undoOld(c)
			note(c, ok, err)
		}
	}
	if full != nil {
		return HalfDone{banger.Errorf(banger.NoSpace, "cannot undo an interrupted apply to %s: %w", a.path, full).
			Hint("once there is room, banger vm workspace status VM tries again")}
	}
	if len(left) == 0 {
		return nil
	}
	// What was there stays where it can be found, and nobody tries again.
	err := banger.Errorf(banger.Conflict, "cannot undo an interrupted apply: %s changed since", quoted(left)).
		Hint("what was there before is in %s", filepath.Join(a.path, a.old("")))
	return HalfDone{errors.Join(err, os.Remove(a.journal.file))}
}

// dropNew removes what has not come into its place: nobody needs it, and to undo may
// take room.
func (a *applying) dropNew() {
	if root, err := os.OpenRoot(a.path); err == nil {
		_ = root.RemoveAll(path.Join(a.journal.staging, "new"))
		_ = root.Close()
	}
}

// undoNew removes what was not there before.
func (a *applying) undoNew(c Change, had map[string]bool) (ok bool, err error) {
	have, err := a.look(c.Path, c.New.ID)
	var in *blocked
	switch {
	case errors.As(err, &in): // another change has not made room yet
		return true, nil
	case err != nil:
		return false, err
	case have == c.New:
		err = a.remove(c.Path)
	}
	a.prune(c.Path, had, func(string) {}) // also directories that were made for it and nothing more
	return have == c.New || have.Mode == Absent || have.Mode == directory, err
}

// undoOld brings back what was replaced or removed.
func (a *applying) undoOld(c Change) (ok bool, err error) {
	if !a.exists(a.old(c.Path)) {
		return true, nil // it was not its turn yet
	}
	have, err := a.look(c.Path, c.Old.ID)
	if err == nil && have.Mode == directory && a.clear(c.Path) == nil {
		have = File{} // made for what was to come in it
	}
	if err != nil || have == c.Old {
		return err == nil, err
	}
	if have != c.New && have.Mode != Absent {
		return false, nil
	}
	if err := a.makeAgain(path.Dir(c.Path)); err != nil {
		return false, err
	}
	if have.Mode == Absent {
		return true, a.move(a.old(c.Path), c.Path, true)
	}
	a.takeStep()
	err = a.supersede(a.old(c.Path), c.Path, func() bool {
		was, err := a.look(a.old(c.Path), c.New.ID)
		return err == nil && was == c.New
	})
	if err == nil && a.exists(a.old(c.Path)) {
		err = a.remove(a.old(c.Path)) // what was to come
	}
	return err == nil, err
}

// makeAgain makes a directory with the permissions that were noted.
func (a *applying) makeAgain(dir string) error {
	if dir == "." || a.exists(dir) {
		return nil
	}
	if err := a.makeAgain(path.Dir(dir)); err != nil {
		return err
	}
	if err := a.in(dir, func(at int, name string) error { return unix.Mkdirat(at, name, 0o700) }); err != nil {
		return err
	}
	return a.chmod(dir, a.mode(a.old(dir))|0o700)
}

func quote(p string) string { return strconv.Quote(p) }
