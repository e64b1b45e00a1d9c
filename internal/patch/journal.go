package patch

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/artifact"
)

// journal says what is being put into which tree, so that the next apply can
// undo it should this one be killed. It lies outside the tree: what lies inside
// may have come with it, and would be believed.
type journal struct {
	file    string // where it is written
	root    string
	staging string   // name of the directory at the top of the tree
	changes []Change // none before all that is new is on the disk, nor once all is done
}

// journalEnd is after the last change: a journal without it is not whole, and
// nothing was done yet.
const journalEnd = "end"

// write writes the journal into dir under a name of its own.
func (j *journal) write(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var b bytes.Buffer
	b.WriteString(j.root + "\x00" + j.staging + "\x00")
	for _, c := range j.changes {
		c.format(&b)
	}
	b.WriteString(journalEnd)
	j.file = filepath.Join(dir, strings.TrimPrefix(j.staging, StagingPrefix))
	return artifact.WriteFile(j.file, b.Bytes())
}

func readJournal(file string) (*journal, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	body, whole := bytes.CutSuffix(content, []byte(journalEnd))
	parts := bytes.SplitN(body, []byte{0}, 3)
	if !whole || len(parts) != 3 {
		return nil, errors.New("it is not whole")
	}
	j := &journal{file: file, root: string(parts[0]), staging: string(parts[1])}
	j.changes, err = Read(bytes.NewReader(parts[2]))
	return j, err
}

// Recover undoes what applies that were killed have left half-done, wherever that
// was, and says so through warn.
func Recover(journals string, warn func(string)) error {
	entries, err := os.ReadDir(journals)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue // not whole yet
		}
		file := filepath.Join(journals, e.Name())
		j, readErr := readJournal(file)
		if errors.Is(readErr, os.ErrNotExist) {
			continue // it ended meanwhile
		}
		if readErr != nil {
			err = errors.Join(err, banger.Errorf(banger.Internal, "cannot read the journal %s: %w", file, readErr))
			continue
		}
		err = errors.Join(err, j.recover(warn))
	}
	return err
}

func (j *journal) recover(warn func(string)) error {
	t, err := openTree(j.root)
	if errors.Is(err, os.ErrNotExist) {
		return j.keep(warn)
	}
	if err != nil {
		return err
	}
	defer t.close()
	if t.lock() != nil {
		return nil // its apply lives
	}
	// It lived until a moment ago, and may have done more since, or all.
	now, err := readJournal(j.file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return banger.Errorf(banger.Internal, "cannot read the journal %s: %w", j.file, err)
	}
	a := &applying{tree: t, journal: now}
	if len(now.changes) > 0 && !a.exists(now.staging) {
		return now.keep(warn) // this is another tree
	}
	if err := a.undo(); err != nil {
		return err
	}
	if len(now.changes) > 0 {
		warn("an apply to " + j.root + " that was interrupted has been undone")
	} else {
		warn("what an apply to " + j.root + " that was interrupted had left over has been removed")
	}
	return a.end()
}

// keep leaves a journal whose tree is not there: it may have been moved, or not be
// mounted, and come back. Where nothing was done it is of no more use.
func (j *journal) keep(warn func(string)) error {
	if len(j.changes) == 0 {
		return os.Remove(j.file)
	}
	warn("cannot undo an interrupted apply to " + j.root + ": that tree is not there now; if it never will be, rm " + banger.ShellWord(j.file))
	return nil
}

// lock makes this process the only one that changes the tree, until it ends.
func (t *tree) lock() error {
	if err := unix.Flock(int(t.root.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return banger.Errorf(banger.Busy, "changes are being applied to %s already", t.path)
	}
	return nil
}
