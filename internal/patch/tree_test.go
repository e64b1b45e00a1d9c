package patch

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
)

// files is a tree as a test writes it down: paths with contents. "x " before a
// content makes it executable, "-> " a symlink.
type files map[string]string

func split(text string) (Mode, string) {
	if rest, ok := strings.CutPrefix(text, "x "); ok {
		return Executable, rest
	}
	if rest, ok := strings.CutPrefix(text, "-> "); ok {
		return Symlink, rest
	}
	return Plain, text
}

// contents is a Git that knows what it was told.
type contents map[string]string

func (c contents) file(text string) File {
	mode, content := split(text)
	id, _ := contentID(strings.Repeat("0", 40), int64(len(content)), strings.NewReader(content))
	c[id] = content
	return File{mode, id}
}

func (c contents) Copy(w io.Writer, id, _ string) error {
	content, known := c[id]
	if !known {
		return fmt.Errorf("no content %s", id)
	}
	_, err := io.WriteString(w, content)
	return err
}

// Names converts nothing.
func (c contents) Modes() bool { return true }

func (c contents) Names(paths []string) ([]string, error) { return make([]string, len(paths)), nil }

// between is what leads from one tree to another.
func (c contents) between(from, to files) (changes []Change) {
	for p, text := range from {
		switch now, stays := to[p]; {
		case !stays:
			changes = append(changes, Change{Path: p, Old: c.file(text)})
		case now != text:
			changes = append(changes, Change{Path: p, Old: c.file(text), New: c.file(now)})
		}
	}
	for p, text := range to {
		if _, was := from[p]; !was {
			changes = append(changes, Change{Path: p, New: c.file(text)})
		}
	}
	return changes
}

func (f files) write(t testing.TB, dir string) {
	t.Helper()
	for p, text := range f {
		mode, content := split(text)
		file := filepath.Join(dir, p)
		must(t, os.MkdirAll(filepath.Dir(file), 0o755))
		switch mode {
		case Symlink:
			must(t, os.Symlink(content, file))
		case Executable:
			must(t, os.WriteFile(file, []byte(content), 0o755))
		default:
			must(t, os.WriteFile(file, []byte(content), 0o644))
		}
	}
}

// read is the tree in dir as text, one path a line; other kinds of files too.
func read(t testing.TB, dir string) string {
	t.Helper()
	var lines []string
	must(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, p)
		info, err := d.Info()
		if err != nil {
			return err
		}
		var content []byte
		switch d.Type() {
		case fs.ModeSymlink:
			target, _ := os.Readlink(p)
			content = []byte(target)
		case 0:
			content, err = os.ReadFile(p)
		}
		lines = append(lines, fmt.Sprintf("%q %v %q", name, info.Mode(), content))
		return err
	}))
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

// rig is a tree on the host, what lies beside it, and where journals go.
type rig struct {
	t                   testing.TB
	outer, root, canary string
	journals            string
	contents            contents
}

func newRig(t testing.TB, host files) *rig {
	t.Helper()
	outer := t.TempDir()
	r := &rig{t: t, outer: outer, root: filepath.Join(outer, "tree"), canary: filepath.Join(outer, "canary"),
		journals: filepath.Join(outer, "journals"), contents: contents{}}
	host.write(t, r.root)
	must(t, os.MkdirAll(r.root, 0o755))
	files{"file": "outside", "dir/file": "outside too"}.write(t, r.canary)
	files{".git/config": "[core]", ".git/hooks/x": "", ".git/HEAD": "ref: refs/heads/main"}.write(t, r.root)
	return r
}

func (r *rig) apply(changes []Change) (Applied, error) {
	r.t.Helper()
	before := read(r.t, r.canary) + read(r.t, filepath.Join(r.root, ".git"))
	done, err := Apply(r.root, r.journals, changes, r.contents)
	if after := read(r.t, r.canary) + read(r.t, filepath.Join(r.root, ".git")); after != before {
		r.t.Errorf("outside of the tree, or in .git:\n%s\nwas\n%s", after, before)
	}
	return done, err
}

// holds compares the tree, without its .git, and looks for what was left.
func (r *rig) holds(want files) {
	r.t.Helper()
	dir := r.t.TempDir()
	want.write(r.t, dir)
	files{".git/config": "[core]", ".git/hooks/x": "", ".git/HEAD": "ref: refs/heads/main"}.write(r.t, dir)
	if got, want := read(r.t, r.root), read(r.t, dir); got != want {
		r.t.Errorf("the tree is\n%s\nwant\n%s", got, want)
	}
	if left, _ := os.ReadDir(r.journals); len(left) > 0 {
		r.t.Errorf("journals are left: %v", left)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestListsOfChangesAreReadAsTheyAreWritten(t *testing.T) {
	c := contents{}
	changes := c.between(files{"a": "1", "b": "x 2", "new\nline": "3"}, files{"a": "-> 1", "c d": "4"})
	var b bytes.Buffer
	for _, change := range changes {
		change.format(&b)
	}
	got, err := Read(bytes.NewReader(b.Bytes()))
	if err != nil || fmt.Sprint(got) != fmt.Sprint(changes) {
		t.Errorf("%v, %v, want %v", got, err, changes)
	}
	for _, bad := range []string{"x", ":100644 100644 a b M\x00f\x00", ":100666 100644 " + strings.Repeat("0", 40) + " " + strings.Repeat("0", 40) + " M\x00f\x00",
		b.String()[:b.Len()-1]} {
		if got, err := Read(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was read as %v", bad, got)
		}
	}
}
