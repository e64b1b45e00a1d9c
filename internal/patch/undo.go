package patch

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"banger"
)

// undo takes back whatever was done of an apply, in whatever state that is. It
// touches no path that is neither as it was nor as it was to become: somebody
// else's work is there. It can be repeated.
func (a *applying) undo() error {
	var left []string
	had := map[string]bool{} // directories that were there before
	for _, c := range a.journal.changes {
		if c.Old.Mode != Absent {
			above(c.Path, had)
		}
	}
	for _, c := range a.journal.changes {
		if c.Old.Mode == Absent && !a.undoNew(c, had) {
			left = append(left, c.Path)
		}
	}
	for _, c := range a.journal.changes {
		if c.Old.Mode != Absent && !a.undoOld(c) {
			left = append(left, c.Path)
		}
	}
	if len(left) == 0 {
		return nil
	}
	// What was there stays where it can be found, and nobody tries again.
	return errors.Join(banger.Errorf(banger.Conflict, "cannot undo an interrupted apply: %s changed since", quoted(left)).
		Hint("what was there before is in %s", filepath.Join(a.path, a.old(""))), os.Remove(a.journal.file))
}

// undoNew removes what was not there before.
func (a *applying) undoNew(c Change, had map[string]bool) bool {
	have, err := a.look(c.Path, c.New.ID)
	var in *blocked
	switch {
	case errors.As(err, &in): // another change has not made room yet
		return true
	case err != nil:
		return false
	case have == c.New:
		err = a.remove(c.Path)
	}
	a.prune(c.Path, had) // also directories that were made for it and nothing more
	return err == nil && (have == c.New || have.Mode == Absent || have.Mode == directory)
}

// undoOld brings back what was replaced or removed.
func (a *applying) undoOld(c Change) bool {
	if !a.exists(a.old(c.Path)) {
		return true // it was not its turn yet
	}
	have, err := a.look(c.Path, c.Old.ID)
	if err == nil && have.Mode == directory && a.clear(c.Path) == nil {
		have = File{} // made for what was to come in it
	}
	if err == nil && have == c.Old {
		return true
	}
	if err != nil || have != c.New && have.Mode != Absent || a.makeParent(c.Path) != nil {
		return false
	}
	return a.move(a.old(c.Path), c.Path, have.Mode == Absent) == nil
}

func quote(p string) string { return strconv.Quote(p) }
