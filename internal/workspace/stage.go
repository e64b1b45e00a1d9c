package workspace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"banger"
)

// Names of ours in the git directory of a guest's clone.
const (
	baseRef = "refs/banger/base"
	oldRef  = "refs/banger/before" // what a forced prepare took the branch from

	// Likewise of the branch, where the guest had commits on another one as well.
	oldBranchRef = "refs/banger/before-branch"

	ownDir   = "banger"
	baseName = ownDir + "/index"

	// What is written after this one was written by the guest.
	sinceName  = ownDir + "/since"
	sourceName = ownDir + "/source" // where it came from
)

// stage is a git directory in the making, in a directory of the host's that goes
// again. It reads the objects of the repository it is of; the repository itself
// is only read.
type stage struct {
	repo  repository
	at    string // the git directory
	files string // where the files are
	git   git    // in it, on those files

	head   string // commit the guest's clone begins at, "" for none
	branch string
	base   string          // commit of the tree as brought in
	tree   string          // that tree
	all    []entry         // of that tree
	absent map[string]bool // those without a file, as in a sparse checkout
	clean  bool            // the tree is that of head
}

// entry is a file as it goes in.
type entry struct {
	mode string // as git has it
	id   string
	path string
}

const linkMode, moduleMode = "120000", "160000"

// begin makes the directory, with what says how files are to be read.
func begin(r repository, at, files string) (*stage, error) {
	s := &stage{repo: r, at: at, files: files, absent: map[string]bool{}}
	s.git = r.git.with(
		"GIT_DIR="+at, "GIT_WORK_TREE="+files, "GIT_INDEX_FILE="+filepath.Join(at, "index"),
		"GIT_ALTERNATE_OBJECT_DIRECTORIES="+quoted(filepath.Join(r.common, "objects")))
	s.git.dir = files
	for _, dir := range []string{"objects/pack", "refs", "info", ownDir} {
		if err := os.MkdirAll(filepath.Join(at, dir), 0o755); err != nil {
			return nil, err
		}
	}
	err := errors.Join(
		s.write("HEAD", "ref: refs/heads/none\n"),
		s.write("config", r.config.forGuest(r.format, "", "")),
		s.borrow(filepath.Join(r.common, "info", "attributes"), "info/attributes"),
		s.borrow(filepath.Join(r.common, "info", "exclude"), "info/exclude"),
		s.borrow(filepath.Join(r.dir, "info", "sparse-checkout"), "info/sparse-checkout"))
	return s, err
}

func (s *stage) write(name, content string) error {
	return os.WriteFile(filepath.Join(s.at, name), []byte(content), 0o644)
}

// borrow copies a file that need not be there.
func (s *stage) borrow(from, name string) error {
	content, err := os.ReadFile(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.at, name), content, 0o644)
}

// takeWorkTree makes the tree as it is: what the index says, but for paths that
// are otherwise or not in it, and those that are gone.
func (s *stage) takeWorkTree(ctx context.Context, paths, gone []string) error {
	if err := s.borrowIndex(); err != nil {
		return err
	}
	g := s.asHere().with("GIT_INDEX_FILE=" + filepath.Join(s.at, baseName))
	_, err := g.feed(ctx, strings.NewReader(joined(gone)), "update-index",
		"-q", "--unmerged", "--refresh", "--force-write-index", "--force-remove", "-z", "--stdin")
	if err == nil && len(paths) > 0 {
		err = take(ctx, g, paths)
	}
	if err != nil {
		return err
	}
	return s.readTree(ctx, g)
}

// asHere is git that takes a file for unchanged where the repository's own does:
// the index that it borrows knows more of files than their sizes and times.
func (s *stage) asHere() git {
	g := s.git
	g.settings = slices.Clone(g.settings)
	for key, value := range map[string]string{"core.trustctime": "true", "core.checkstat": "default"} {
		if set, ok := s.repo.config.all[key]; ok {
			value = set
		}
		g.settings = append(g.settings, key+"="+value)
	}
	return g
}

// take has an index follow the work tree in some paths. Git's "add --update"
// would also write, or touch in the repository, the objects of every file that is
// as young as the index. A file that is skipped is not there, and not removed.
func take(ctx context.Context, g git, paths []string) error {
	_, err := g.feed(ctx, strings.NewReader(joined(paths)), "update-index",
		"--add", "--remove", "--replace", "--ignore-skip-worktree-entries", "-z", "--stdin")
	return err
}

// joined are items that end in NUL.
func joined(items []string) string {
	var b strings.Builder
	for _, item := range items {
		b.WriteString(item + "\x00")
	}
	return b.String()
}

// borrowIndex copies the repository's index, which knows what it need not read. By
// its time git tells which files may have changed since without showing it.
func (s *stage) borrowIndex() error {
	shared, err := filepath.Glob(filepath.Join(globbed(s.repo.dir), "sharedindex.*"))
	if err != nil {
		return err
	}
	for _, file := range shared {
		if err := s.borrow(file, filepath.Base(file)); err != nil {
			return err
		}
	}
	from := filepath.Join(s.repo.dir, "index")
	info, err := os.Stat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = s.borrow(from, baseName)
	}
	if err != nil {
		return err
	}
	return os.Chtimes(filepath.Join(s.at, baseName), time.Time{}, info.ModTime())
}

// globbed is a path with nothing in it that a pattern would read.
func globbed(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// takeCommit makes the tree of a commit, with its files checked out to files.
func (s *stage) takeCommit(ctx context.Context, commit string) error {
	g := s.git.with("GIT_INDEX_FILE=" + filepath.Join(s.at, baseName))
	if _, err := g.run(ctx, "read-tree", commit); err != nil {
		return err
	}
	if _, err := g.run(ctx, "checkout-index", "--all", "--index", "--quiet"); err != nil {
		return err
	}
	return s.readTree(ctx, g)
}

// readTree notes what is in the base index and its tree.
func (s *stage) readTree(ctx context.Context, g git) (err error) {
	listed, err := g.list(ctx, "ls-files", "-z", "--stage", "-v")
	if err != nil {
		return err
	}
	marked, err := s.unmark(ctx, g, listed)
	if err == nil && marked {
		listed, err = g.list(ctx, "ls-files", "-z", "--stage", "-v")
	}
	if err != nil {
		return err
	}
	for _, item := range listed {
		e, here := parseEntry(item)
		s.all = append(s.all, e)
		if !here {
			s.absent[e.path] = true
		}
	}
	// Away from the repository's objects: git would touch those that it finds
	// there instead of writing them.
	s.tree, err = g.with("GIT_ALTERNATE_OBJECT_DIRECTORIES=").line(ctx, "write-tree", "--missing-ok")
	return err
}

// unmark has an index follow the files that git was told not to look at, and says
// whether there are any.
func (s *stage) unmark(ctx context.Context, g git, listed []string) (bool, error) {
	assumed, skipped := s.marked(listed)
	for option, paths := range map[string][]string{"--no-assume-unchanged": assumed, "--no-skip-worktree": skipped} {
		if len(paths) == 0 {
			continue
		}
		if _, err := g.feed(ctx, strings.NewReader(joined(paths)), "update-index", option, "-z", "--stdin"); err != nil {
			return false, err
		}
	}
	paths := slices.Concat(assumed, skipped)
	if len(paths) == 0 {
		return false, nil
	}
	return true, take(ctx, g, paths)
}

// marked lists the files that git was told to take for unchanged, and those that it
// was told to skip but that are there. In a sparse checkout it has seen to the
// latter itself.
func (s *stage) marked(listed []string) (assumed, skipped []string) {
	sparse := s.repo.config.sparse()
	for _, item := range listed {
		_, path, _ := strings.Cut(item, "\t")
		if item[0] >= 'a' && item[0] <= 'z' {
			assumed = append(assumed, path)
		}
		if (item[0] == 'S' || item[0] == 's') && !sparse && s.has(path) {
			skipped = append(skipped, path)
		}
	}
	return assumed, skipped
}

// has says whether a file is there, and not beyond a symlink.
func (s *stage) has(path string) bool {
	at := filepath.Join(s.files, path)
	dir, err := filepath.EvalSymlinks(filepath.Dir(at))
	if err != nil || dir != filepath.Dir(at) {
		return false
	}
	info, err := os.Lstat(at)
	return err == nil && !info.IsDir()
}

// parseEntry reads "TAG MODE ID STAGE\tPATH". A file that a sparse checkout
// leaves out is not here.
func parseEntry(item string) (e entry, here bool) {
	head, path, _ := strings.Cut(item, "\t")
	f := strings.Fields(head)
	if len(f) != 4 {
		return e, false
	}
	return entry{f[1], f[2], path}, f[0] != "S" && f[0] != "s"
}

// commit makes the commit of the tree, and the index of the clone, which is that
// of head: what is staged does not travel.
func (s *stage) commit(ctx context.Context, head, branch string) error {
	s.head, s.branch = head, branch
	args := []string{"commit-tree", "-m", "The files as banger brought them in", s.tree}
	if head != "" {
		args = append(args, "-p", head)
		tree, err := s.git.line(ctx, "rev-parse", "--verify", head+"^{tree}")
		if err != nil {
			return err
		}
		s.clean = tree == s.tree
	}
	now := fmt.Sprintf("%d +0000", time.Now().Unix())
	var err error
	s.base, err = s.git.with(
		"GIT_AUTHOR_NAME=banger", "GIT_AUTHOR_EMAIL=banger@localhost", "GIT_AUTHOR_DATE="+now,
		"GIT_COMMITTER_NAME=banger", "GIT_COMMITTER_EMAIL=banger@localhost", "GIT_COMMITTER_DATE="+now,
	).line(ctx, args...)
	if err != nil || head == "" || s.clean {
		return err
	}
	index, err := os.ReadFile(filepath.Join(s.at, baseName))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.at, "index"), index, 0o644); err != nil {
		return err
	}
	_, err = s.git.run(ctx, "read-tree", "--reset", head)
	return err
}

// present are the entries that have a file.
func (s *stage) present(of []entry) []entry {
	return slices.DeleteFunc(slices.Clone(of), func(e entry) bool { return s.absent[e.path] })
}

// cannotRead says which repository could not be read.
func (s *stage) cannotRead(err error) error {
	return banger.Wrap(err, "cannot read the repository %s", s.repo.root)
}

// pack writes the objects of the clone as one pack into its git directory.
func (s *stage) pack(ctx context.Context, revisions []string) error {
	in := strings.NewReader(strings.Join(revisions, "\n") + "\n")
	return s.packObjects(ctx, in, "--revs")
}

// packObjects packs what in names. Objects keep the form that the repository has
// them in; no new differences are looked for, which would take longer than to
// send a little more.
func (s *stage) packObjects(ctx context.Context, in *strings.Reader, args ...string) error {
	g := s.git
	g.settings = append(append([]string(nil), g.settings...), "pack.compression=1", "repack.writeBitmaps=false")
	args = append([]string{"pack-objects", "-q", "--window=0", "--delta-base-offset"}, args...)
	_, err := g.feed(ctx, in, append(args, filepath.Join(s.at, "objects/pack/pack"))...)
	return err
}

// shallow notes where the history ends.
func (s *stage) shallow(commits []string) error {
	if len(commits) == 0 {
		return nil
	}
	return s.write("shallow", strings.Join(commits, "\n")+"\n")
}

// refs writes HEAD and the references of the clone.
func (s *stage) refs(refs map[string]string, peeled map[string]string) error {
	var b bytes.Buffer
	b.WriteString("# pack-refs with: peeled fully-peeled sorted \n")
	for _, name := range sortedKeys(refs) {
		fmt.Fprintf(&b, "%s %s\n", refs[name], name)
		if id := peeled[name]; id != "" {
			fmt.Fprintf(&b, "^%s\n", id)
		}
	}
	head := s.head + "\n"
	if s.branch != "" {
		head = "ref: refs/heads/" + s.branch + "\n"
	}
	return errors.Join(s.write("packed-refs", b.String()), s.write("HEAD", head))
}
