package workspace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/patch"
)

// largestPack is what a guest may send.
const largestPack = 16 << 30

// quarantine is a repository that holds what a guest sent and nothing else.
// Nothing of the guest's is configured in it, and nothing of the user's either.
type quarantine struct {
	git           // stands in its directory
	held *os.File // locked as long as somebody uses it
}

// newQuarantine makes one below dir, and removes those of processes that were
// killed. ids are as long as like.
func newQuarantine(dir, like string) (_ *quarantine, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	unlock, err := sweep(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	path, err := os.MkdirTemp(dir, "*")
	if err != nil {
		return nil, err
	}
	q := &quarantine{git: alone(path)}
	if q.held, err = holdDir(q.dir, unix.LOCK_EX|unix.LOCK_NB); err == nil {
		err = q.furnish(like)
	}
	if err != nil {
		q.close()
		return nil, err
	}
	return q, nil
}

// alone is git in a repository where no configuration but that one's counts.
func alone(dir string) git {
	return git{dir: dir}.with("GIT_DIR="+dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_ATTR_NOSYSTEM=1",
		"HOME="+dir, "XDG_CONFIG_HOME="+dir)
}

// sweep removes what nobody holds, and lets nobody make or remove anything until
// it is unlocked.
func sweep(dir string) (unlock func(), err error) {
	all, err := holdDir(dir, unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if held, holdErr := holdDir(filepath.Join(dir, e.Name()), unix.LOCK_EX|unix.LOCK_NB); holdErr == nil {
			err = errors.Join(err, os.RemoveAll(held.Name()), held.Close())
		}
	}
	return func() { all.Close() }, err
}

func holdDir(dir string, how int) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// furnish makes it a repository.
func (q *quarantine) furnish(like string) error {
	config := "[core]\n\tbare = true\n\trepositoryFormatVersion = 0\n"
	if len(like) == 64 {
		config = "[core]\n\tbare = true\n\trepositoryFormatVersion = 1\n[extensions]\n\tobjectFormat = sha256\n"
	}
	err := errors.Join(os.MkdirAll(filepath.Join(q.dir, "objects", "pack"), 0o700), os.Mkdir(filepath.Join(q.dir, "refs"), 0o700))
	for name, content := range map[string]string{"HEAD": "ref: refs/heads/none\n", "config": config} {
		err = errors.Join(err, os.WriteFile(filepath.Join(q.dir, name), []byte(content), 0o600))
	}
	return err
}

// attributes sets those of the files in it.
func (q *quarantine) attributes(text string) error {
	dir := filepath.Join(q.dir, "info")
	return errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "attributes"), []byte(text), 0o600))
}

func (q *quarantine) close() {
	_ = os.RemoveAll(q.dir)
	if q.held != nil {
		q.held.Close()
	}
}

// take reads a pack. Git names every object in it anew, by its content.
func (q *quarantine) take(ctx context.Context, pack io.Reader) error {
	return q.within(receiving).stream(ctx, pack, io.Discard, "index-pack", "--stdin", fmt.Sprintf("--max-input-size=%d", int64(largestPack)))
}

// changes is what leads from one tree to another, checked: by what is refused
// here, and by git's own index.
func (q *quarantine) changes(ctx context.Context, from, to string, most bounds) ([]patch.Change, error) {
	var changes []patch.Change
	err := q.within(most).read(ctx, nil, func(r io.Reader) (err error) {
		changes, err = patch.Read(r)
		return err
	}, "diff-tree", "-r", "-z", "--raw", "--no-abbrev", "--no-renames", from, to)
	if err != nil {
		return nil, banger.Wrap(err, "cannot compare what the guest sent with what it was given")
	}
	if err := patch.Check(changes); err != nil {
		return nil, err
	}
	return changes, q.tryIndex(ctx, changes)
}

// tryIndex puts the new files into an index, which refuses what git would never
// check out on any system.
func (q *quarantine) tryIndex(ctx context.Context, changes []patch.Change) error {
	info := &texts{changes: changes, text: func(c patch.Change) string {
		if c.New.Mode == patch.Absent {
			return ""
		}
		return fmt.Sprintf("%06o %s\t%s\x00", uint32(c.New.Mode), c.New.ID, c.Path)
	}}
	_, err := q.within(comparing).feed(ctx, info,
		"-c", "core.protectNTFS=true", "-c", "core.protectHFS=true", "update-index", "-z", "--index-info")
	if err != nil {
		return banger.Errorf(banger.Conflict, "the guest's tree holds a path that git refuses: %w", err)
	}
	return nil
}
