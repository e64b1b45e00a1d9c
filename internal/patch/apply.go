package patch

import (
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"banger"
)

// Git is what is asked of it. Its name of a content is not always that of the
// bytes in the file: it may have been told to convert the ends of lines.
type Git interface {
	// Copy writes the content that git calls id, as it lies in the file at path,
	// or as it is where path is "".
	Copy(w io.Writer, id, path string) error

	// Names gives what git would call the contents of the files at some paths,
	// in their order.
	Names(paths []string) ([]string, error)

	// Modes says whether the permissions of a file here say that it is executable.
	Modes() bool
}

// Applied is what an apply did.
type Applied struct {
	Written int `json:"written"`
	Removed int `json:"removed"`
	Already int `json:"already"` // were as they should become
}

// Apply makes changes in the tree at root: all of them, or none where it fails.
// It fails where the tree holds something else than was brought in, where
// something on the way to a path is no directory, and where a path or a kind of
// file is not allowed. Should it be killed, Recover undoes what it did; journals
// is the directory through which the two know of each other.
func Apply(root, journals string, changes []Change, git Git) (Applied, error) {
	return (&applier{}).apply(root, journals, changes, git)
}

type applier struct {
	step func() // before each change to the tree; for tests
}

func (ap *applier) apply(root, journals string, changes []Change, git Git) (done Applied, err error) {
	if err := errors.Join(Check(changes), checkKinds(changes)); err != nil {
		return done, err
	}
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return done, err
	}
	t, err := openTree(root)
	if err != nil {
		return done, err
	}
	defer t.close()
	if err := t.lock(); err != nil {
		return done, err
	}
	t.modeless = !git.Modes()
	todo, err := t.compare(changes, git)
	if err != nil || len(todo) == 0 {
		done.Already = len(changes)
		return done, err
	}
	if err := t.checkRoom(todo); err != nil {
		return done, err
	}
	a := &applying{tree: t, journal: &journal{root: root, staging: StagingPrefix + rand.Text()}, step: ap.step}
	if err := a.run(journals, todo, git); err != nil {
		return done, err
	}
	for _, c := range todo {
		if c.New.Mode == Absent {
			done.Removed++
		}
	}
	done.Written, done.Already = len(todo)-done.Removed, len(changes)-len(todo)
	return done, nil
}

// applying is one apply that was begun. Its staging directory has what is to come
// as new/NUMBER, and what was replaced or removed as old/PATH.
type applying struct {
	*tree
	journal *journal
	step    func()
}

// run writes all that is new, then in the journal what is about to happen, and
// then does it.
func (a *applying) run(journals string, todo []Change, git Git) error {
	return asNoSpace(a.tryAll(journals, todo, git))
}

func (a *applying) tryAll(journals string, todo []Change, git Git) error {
	if err := a.journal.write(journals); err != nil {
		return banger.Errorf(banger.Internal, "cannot write the journal: %w", err)
	}
	err := a.stage(todo, git)
	if err == nil {
		a.journal.changes = todo
		err = a.journal.write(journals)
	}
	if err == nil {
		err = a.commit()
	}
	if err == nil {
		err = a.settle()
	}
	if err != nil {
		if undoErr := a.undo(); undoErr != nil {
			return HalfDone{errors.Join(err, undoErr)}
		}
	}
	return errors.Join(err, a.end())
}

func (a *applying) old(p string) string { return path.Join(a.journal.staging, "old", p) }
func (a *applying) new(i int) string    { return path.Join(a.journal.staging, "new", strconv.Itoa(i)) }

func (a *applying) takeStep() {
	if a.step != nil {
		a.step()
	}
}

// stage writes all that is new, and sees it onto the disk. From then on a new
// file's ID is that of its bytes.
func (a *applying) stage(todo []Change, git Git) error {
	err := a.in(a.journal.staging, func(dir int, name string) error { return unix.Mkdirat(dir, name, 0o700) })
	if err != nil {
		return err
	}
	for _, name := range []string{"new", "old"} {
		if err := a.makeParent(path.Join(a.journal.staging, name, "x")); err != nil {
			return err
		}
	}
	for i := range todo {
		c := &todo[i]
		if c.New.Mode == Absent {
			continue
		}
		err := a.stageOne(a.new(i), *c, git)
		if err == nil {
			c.New, err = a.look(a.new(i), c.New.ID)
		}
		if err != nil {
			return banger.Errorf(banger.Internal, "cannot write %s: %w", quote(c.Path), err)
		}
	}
	return unix.Syncfs(int(a.root.Fd()))
}

func (a *applying) stageOne(to string, c Change, git Git) error {
	if c.New.Mode == Symlink {
		var target limited
		if err := git.Copy(&target, c.New.ID, ""); err != nil {
			return err
		}
		return a.in(to, func(dir int, name string) error { return unix.Symlinkat(string(target), dir, name) })
	}
	f, err := a.createFile(to, c.New.Mode)
	if err != nil {
		return err
	}
	err = git.Copy(f, c.New.ID, c.Path)
	if was := a.permissions(c.Path); was != 0 {
		if !a.modeless {
			was = keep(was, c.New.Mode)
		}
		err = errors.Join(err, f.Chmod(was))
	}
	return errors.Join(err, f.Close())
}

// createFile makes a file with the permissions that the umask leaves.
func (a *applying) createFile(p string, mode Mode) (f *os.File, err error) {
	perm := uint32(0o666)
	if mode == Executable {
		perm = 0o777
	}
	err = a.in(p, func(dir int, name string) error {
		fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, perm)
		if err == nil {
			f = os.NewFile(uintptr(fd), name)
		}
		return err
	})
	return f, err
}

// keep is what a file's permissions become: who may read it may execute it, or
// nobody.
func keep(was os.FileMode, now Mode) os.FileMode {
	if now == Executable {
		return was | was&0o444>>2
	}
	return was &^ 0o111
}

// limited takes a symlink's target and no more.
type limited []byte

func (l *limited) Write(p []byte) (int, error) {
	if len(*l)+len(p) >= unix.PathMax {
		return 0, errors.New("it is a symlink with too long a target")
	}
	*l = append(*l, p...)
	return len(p), nil
}

// commit puts all in place. What goes makes room first; each path has its old
// content or its new one at any moment, and what was is in old.
func (a *applying) commit() error {
	needed := makeRoom(a.journal.changes).dirs
	for _, c := range a.journal.changes {
		if c.New.Mode == Absent {
			if err := a.takeAway(c, needed); err != nil {
				return banger.Errorf(banger.CodeOf(err), "cannot remove %s: %w", quote(c.Path), err)
			}
		}
	}
	for i, c := range a.journal.changes {
		if c.New.Mode != Absent {
			if err := a.put(i, c); err != nil {
				return banger.Errorf(banger.CodeOf(err), "cannot write %s: %w", quote(c.Path), err)
			}
		}
	}
	return nil
}

// takeAway puts a file aside. Directories that are needed again stay, with the
// permissions they have.
func (a *applying) takeAway(c Change, needed map[string]bool) error {
	if err := a.makeParent(a.old(c.Path)); err != nil {
		return err
	}
	a.takeStep()
	if err := a.move(c.Path, a.old(c.Path), true); err != nil {
		return err
	}
	a.prune(c.Path, needed, a.noteMode)
	return a.unchanged(c)
}

// noteMode gives a directory's permissions to the one in its place among what is
// put aside, should it have to be made again.
func (a *applying) noteMode(dir string) {
	_ = a.chmod(a.old(dir), a.mode(dir)|0o700)
}

func (a *applying) put(i int, c Change) error {
	if c.Old.Mode == Absent {
		if err := errors.Join(a.makeParent(c.Path), a.clear(c.Path)); err != nil {
			return err
		}
		a.takeStep()
		return a.move(a.new(i), c.Path, true)
	}
	if err := a.makeParent(a.old(c.Path)); err != nil {
		return err
	}
	a.takeStep()
	if err := a.link(c.Path, a.old(c.Path)); err != nil {
		return err
	}
	a.takeStep()
	err := a.supersede(a.new(i), c.Path, func() bool { return a.oneFile(a.new(i), a.old(c.Path)) })
	switch {
	case err == nil:
		return a.unchanged(c)
	case banger.CodeOf(err) == banger.Conflict:
		err = errors.Join(err, a.remove(a.old(c.Path))) // nothing is to be undone here
	}
	return err
}

// supersede puts a file in the place of another, which comes to where it was and has
// to be the one that was meant. An editor that saves may have put its own there a
// moment ago, and gets it back.
func (a *applying) supersede(from, to string, meant func() bool) error {
	err := a.exchange(from, to)
	switch {
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS):
		return a.move(from, to, false) // the file system cannot do both at once
	case errors.Is(err, unix.ENOENT):
		return a.move(from, to, true)
	case err != nil || meant():
		return err
	}
	if err := a.exchange(from, to); err != nil {
		return err
	}
	return banger.Errorf(banger.Conflict, "it was changed on the host meanwhile")
}

// unchanged makes sure that what was put aside is what was brought into the
// guest, and not what somebody wrote a moment ago.
func (a *applying) unchanged(c Change) error {
	was, err := a.look(a.old(c.Path), c.Old.ID)
	if err == nil && was != c.Old {
		err = banger.Errorf(banger.Conflict, "it was changed on the host meanwhile")
	}
	return err
}

func (a *applying) makeParent(p string) error {
	d, err := a.makeDir(path.Dir(p))
	if err == nil {
		d.Close()
	}
	return err
}

// link gives a file a second name, or another one where the file system has no
// second names.
func (a *applying) link(from, to string) error {
	err := a.in(from, func(fromDir int, fromName string) error {
		return a.in(to, func(toDir int, toName string) error { return unix.Linkat(fromDir, fromName, toDir, toName, 0) })
	})
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EMLINK) {
		return a.move(from, to, true)
	}
	return err
}

// settle makes what was done, or undone, stand for good: once the journal has no
// changes, whoever finds it has nothing to undo.
func (a *applying) settle() error {
	if err := unix.Syncfs(int(a.root.Fd())); err != nil {
		return err
	}
	a.takeStep()
	decided := *a.journal
	decided.changes = nil
	if err := decided.write(filepath.Dir(a.journal.file)); err != nil {
		return banger.Errorf(banger.Internal, "cannot write the journal: %w", err)
	}
	a.journal = &decided
	a.takeStep()
	return nil
}

// end removes what was only needed on the way, the journal last. What was put
// aside goes only once nothing is to be undone any more.
func (a *applying) end() error {
	if len(a.journal.changes) > 0 {
		if err := a.settle(); err != nil {
			return err
		}
	}
	root, err := os.OpenRoot(a.path)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, name := range []string{a.old(""), a.journal.staging} {
		if err := root.RemoveAll(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		a.takeStep()
	}
	return os.Remove(a.journal.file)
}
