package patch

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
)

// shown is how many paths an error names.
const shown = 10

// compare gives the changes that are still to be made. It fails where the tree
// holds neither what was brought into the guest nor what the guest made of it. Old
// has then the ID of the bytes that are there.
func (t *tree) compare(changes []Change, git Git) (todo []Change, err error) {
	room := makeRoom(changes)
	var odd, found []Change // found.Old is what is there
	for _, c := range changes {
		have, err := t.have(c, room)
		switch {
		case err != nil:
			return nil, banger.Errorf(banger.Internal, "cannot read %s: %w", quote(path.Join(t.path, c.Path)), err)
		case t.same(have, c.New):
		case t.same(have, c.Old):
			c.Old = have
			todo = append(todo, c)
		default:
			odd, found = append(odd, c), append(found, Change{Path: c.Path, Old: have, New: c.New})
		}
	}
	if len(odd) == 0 {
		return todo, nil
	}
	more, err := t.compareConverted(odd, found, git)
	return append(todo, more...), err
}

// compareConverted looks once more at files whose bytes are neither the one nor
// the other, by the names that git gives them.
func (t *tree) compareConverted(changes, found []Change, git Git) (todo []Change, err error) {
	var paths []string
	for _, f := range found {
		if f.Old.ID != "" && f.Old.Mode != Symlink {
			paths = append(paths, f.Path)
		}
	}
	names, err := git.Names(paths)
	if err != nil {
		return nil, err
	}
	name := map[string]string{}
	for i, p := range paths {
		name[p] = names[i]
	}
	var differ []string
	for i, c := range changes {
		switch have := (File{found[i].Old.Mode, name[c.Path]}); {
		case t.same(have, c.New):
		case t.same(have, c.Old):
			todo = append(todo, found[i])
		default:
			differ = append(differ, c.Path)
		}
	}
	if len(differ) > 0 {
		return nil, differing(differ)
	}
	return todo, nil
}

// room is what changes do about the places of others.
type room struct {
	gone map[string]bool // files that go
	made map[string]bool // files that come
	dirs map[string]bool // directories of files that come
}

func makeRoom(changes []Change) room {
	r := room{map[string]bool{}, map[string]bool{}, map[string]bool{}}
	for _, c := range changes {
		if c.New.Mode == Absent {
			r.gone[c.Path] = true
			continue
		}
		r.made[c.Path] = true
		above(c.Path, r.dirs)
	}
	return r
}

// above adds the directories above a path.
func above(p string, dirs map[string]bool) {
	for dir := path.Dir(p); dir != "." && !dirs[dir]; dir = path.Dir(dir) {
		dirs[dir] = true
	}
}

// same says whether a file that is there is one of a change.
func (t *tree) same(have, want File) bool {
	regular := func(f File) bool { return f.Mode == Plain || f.Mode == Executable }
	return have == want || t.modeless && have.ID == want.ID && regular(have) && regular(want)
}

// have is what a change will find when those that make room for it are done.
func (t *tree) have(c Change, r room) (File, error) {
	have, err := t.look(c.Path, c.Old.ID+c.New.ID)
	var in *blocked
	switch {
	case errors.As(err, &in) && (r.gone[in.by] || r.gone[c.Path] && r.made[in.by]):
		return File{}, nil
	case have.Mode == directory && r.gone[c.Path] && r.dirs[c.Path]:
		return File{}, nil
	case errors.As(err, &in):
		return File{Mode: directory}, nil // not what was brought in, whatever that was
	case err != nil || have.Mode != directory:
		return have, err
	}
	empty, err := t.emptiesOut(c.Path, r.gone)
	if empty {
		have = File{}
	}
	return have, err
}

// emptiesOut says whether a directory holds directories and files that go, and
// nothing else.
func (t *tree) emptiesOut(dir string, gone map[string]bool) (bool, error) {
	d, err := t.dir(dir)
	if err != nil {
		return false, err
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	for _, e := range entries {
		p := path.Join(dir, e.Name())
		ok := gone[p]
		if err == nil && e.IsDir() {
			ok, err = t.emptiesOut(p, gone)
		}
		if err != nil || !ok {
			return false, err
		}
	}
	return true, err
}

// clear removes a directory that has only directories in it.
func (t *tree) clear(dir string) error {
	d, err := t.dir(dir)
	var in *blocked
	if errors.Is(err, fs.ErrNotExist) || errors.As(err, &in) {
		return nil // it is no directory
	}
	if err != nil {
		return err
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	for _, e := range entries {
		err = errors.Join(err, t.clear(path.Join(dir, e.Name())))
	}
	if err != nil {
		return err
	}
	return t.in(dir, func(at int, name string) error { return unix.Unlinkat(at, name, unix.AT_REMOVEDIR) })
}

func differing(paths []string) error {
	more := ""
	if len(paths) > shown {
		paths, more = paths[:shown], " and more"
	}
	return banger.Errorf(banger.Conflict, "on the host these are no longer as they were brought in: %s%s", quoted(paths), more)
}

func quoted(paths []string) string {
	var b strings.Builder
	for i, p := range paths {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quote(p))
	}
	return b.String()
}

// exists says whether anything is at a path.
func (t *tree) exists(p string) bool {
	err := t.in(p, func(dir int, name string) error {
		return unix.Fstatat(dir, name, new(unix.Stat_t), unix.AT_SYMLINK_NOFOLLOW)
	})
	return err == nil
}

// permissions are those of a file that is there, or 0.
func (t *tree) permissions(p string) (mode os.FileMode) {
	_ = t.in(p, func(dir int, name string) error {
		var st unix.Stat_t
		err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			mode = os.FileMode(st.Mode & 0o777)
		}
		return err
	})
	return mode
}
