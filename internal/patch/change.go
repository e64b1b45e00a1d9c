package patch

import (
	"bufio"
	"bytes"
	"io"
	"path"
	"sort"
	"strconv"
	"strings"

	"banger"
)

// Mode is what git says a file is.
type Mode uint32

// The kinds of files in a tree. Others are refused.
const (
	Absent     Mode = 0
	Plain      Mode = 0o100644
	Executable Mode = 0o100755
	Symlink    Mode = 0o120000
	Repository Mode = 0o160000 // a commit of another repository

	directory Mode = 0o040000 // never in a change
)

// File is one side of a change. The zero File is none.
type File struct {
	Mode Mode
	ID   string // git's name of the content, in hex
}

// Change is what became of one path. Old is what was there when the tree was
// brought in.
type Change struct {
	Path     string
	Old, New File
	Size     int64 // of the new content, in bytes; 0 where nobody asked
}

// Status says in a word what became of the path.
func (c Change) Status() string {
	switch {
	case c.Old.Mode == Absent:
		return "added"
	case c.New.Mode == Absent:
		return "removed"
	}
	return "changed"
}

// Read reads what "git diff-tree -r -z --raw --no-abbrev --no-renames" writes. It
// keeps nothing but the changes: of a guest there may be very many.
func Read(raw io.Reader) (changes []Change, err error) {
	r := bufio.NewReaderSize(raw, 64<<10)
	for {
		head, err := r.ReadString(0)
		if err == io.EOF && head == "" {
			return changes, nil
		}
		var name string
		if err == nil {
			name, err = r.ReadString(0)
		}
		if err == io.EOF {
			err = garbled()
		}
		if err != nil {
			return nil, err
		}
		c := Change{Path: strings.TrimSuffix(name, "\x00")}
		if err := c.parse(strings.TrimSuffix(head, "\x00")); err != nil {
			return nil, err
		}
		changes = append(changes, c)
	}
}

// parse reads ":OLDMODE NEWMODE OLDID NEWID STATUS".
func (c *Change) parse(head string) (err error) {
	fields := strings.Fields(strings.TrimPrefix(head, ":"))
	if len(fields) != 5 || head[0] != ':' {
		return garbled()
	}
	if c.Old, err = parseFile(fields[0], fields[2]); err != nil {
		return err
	}
	c.New, err = parseFile(fields[1], fields[3])
	return err
}

func parseFile(mode, id string) (File, error) {
	n, err := strconv.ParseUint(mode, 8, 32)
	if err != nil || len(id) != 40 && len(id) != 64 || strings.Trim(id, "0123456789abcdef") != "" {
		return File{}, garbled()
	}
	switch m := Mode(n); m {
	case Absent:
		return File{}, nil
	case Plain, Executable, Symlink, Repository:
		return File{m, id}, nil
	}
	return File{}, banger.Errorf(banger.Conflict, "the guest's tree holds a file of the kind %s, which git does not know", mode)
}

func garbled() error { return banger.Errorf(banger.Internal, "cannot read git's list of changes") }

// format is the inverse of Read.
func (c Change) format(b *bytes.Buffer) {
	id := func(f File) string {
		if f.ID == "" {
			return strings.Repeat("0", len(c.Old.ID+c.New.ID))
		}
		return f.ID
	}
	mode := func(f File) string { return strconv.FormatUint(uint64(f.Mode), 8) }
	b.WriteString(":" + mode(c.Old) + " " + mode(c.New) + " " + id(c.Old) + " " + id(c.New) + " X\x00" + c.Path + "\x00")
}

// Check refuses changes with a path that is not allowed, or that no tree could
// hold side by side. It leaves them in the order of their paths.
func Check(changes []Change) error {
	sort.Slice(changes, func(i, j int) bool { return changes[i].Path < changes[j].Path })
	made := map[string]bool{}
	for i, c := range changes {
		if err := CheckPath(c.Path); err != nil {
			return err
		}
		if i > 0 && changes[i-1].Path == c.Path {
			return refusal(c.Path, "twice")
		}
		made[c.Path] = c.New.Mode != Absent
	}
	for _, c := range changes {
		for dir := path.Dir(c.Path); c.New.Mode != Absent && dir != "."; dir = path.Dir(dir) {
			if made[dir] {
				return refusal(c.Path, "below something that is no directory")
			}
		}
	}
	return nil
}

// checkKinds refuses what can be shown but not put into a tree: another
// repository's commit is not among the files, and where git fetches submodules
// from is not a guest's to say.
func checkKinds(changes []Change) error {
	for _, c := range changes {
		if c.Old.Mode == Repository || c.New.Mode == Repository {
			return banger.Errorf(banger.Conflict, "it changes the submodule or repository %q, whose files are not in it", c.Path)
		}
		for name := range strings.SplitSeq(c.Path, "/") {
			if isGitmodules(name) {
				return banger.Errorf(banger.Conflict, "it changes %q, which says where submodules come from", c.Path)
			}
		}
	}
	return nil
}
