package workspace

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"banger"
)

// Modes of bringing a repository in.
const (
	Overlay = "overlay" // shallow history, and the work tree as it is
	Full    = "full"    // whole history, submodules too
)

// DefaultGuestPath is where a repository goes.
const DefaultGuestPath = "/root/repo"

// Options are what the person asked for.
type Options struct {
	Path      string // anywhere in the repository
	Mode      string // "" is Overlay
	Depth     int    // of Overlay's history; 0 is 1
	Branch    string // make this branch in the guest
	From      string // of this commit, not of the work tree
	Untracked bool   // bring files that git does not know as well

	again bool // as recorded, not as somebody said just now
}

// Plan is what would go in. It says nothing that is not so now, and nothing is
// written for it.
type Plan struct {
	Options
	Root    string // the top of the work tree
	Sub     string // where Path is below it, "" for the top
	Head    string // the commit, "" before the first
	Branch  string // what the guest is on, "" for a detached head
	Started string // the branch or commit in words, for people

	Changes   []Change // what differs from Head
	Untracked []string // go in too
	Included  []string // by .bangerinclude
	Left      int      // untracked files that stay
	Modules   []Module // submodules that are there
	Notes     []string // one line each: what does not travel

	repo   repository
	status status
}

// Change is a path that is not as in the commit.
type Change struct {
	Kind byte // 'M', 'A' or 'D'
	Path string
}

// NewPlan looks at a repository. It refuses what cannot be brought in.
func NewPlan(ctx context.Context, o Options) (*Plan, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	repo, err := open(ctx, o.Path)
	if err != nil {
		return nil, err
	}
	p := &Plan{Options: o, Root: repo.root, Sub: repo.prefix, repo: repo}
	if p.status, err = repo.status(ctx); err != nil {
		return nil, banger.Wrap(err, "cannot read the repository %s", repo.root)
	}
	p.Head = p.status.head
	if o.Branch != "" {
		err = p.newBranch(ctx)
	} else {
		p.Branch = p.status.branch
	}
	if err == nil {
		err = p.look(ctx)
	}
	return p, err
}

func (o *Options) check() error {
	if o.Mode == "" {
		o.Mode = Overlay
	}
	switch {
	case o.Mode != Overlay && o.Mode != Full:
		return banger.Errorf(banger.BadRequest, "bad mode %q: it must be overlay or full", o.Mode)
	case o.Depth < 0:
		return banger.Errorf(banger.BadRequest, "bad depth %d: it must be at least 1", o.Depth)
	case o.Depth > 0 && o.Mode == Full:
		return banger.Errorf(banger.BadRequest, "a depth contradicts the mode full, which has all of the history")
	case o.From != "" && o.Branch == "":
		return banger.Errorf(banger.BadRequest, "cannot begin at %q without a new branch", o.From).
			Hint("--branch NAME --from %s", banger.ShellWord(o.From))
	}
	o.Depth = max(o.Depth, 1)
	return nil
}

// newBranch is where a branch of the guest's own begins.
func (p *Plan) newBranch(ctx context.Context) error {
	if _, err := p.repo.git.run(ctx, "check-ref-format", "--branch", p.Options.Branch); err != nil {
		return banger.Errorf(banger.BadRequest, "bad branch %q: git does not take such a name", p.Options.Branch)
	}
	p.Branch = p.Options.Branch
	if p.From == "" {
		return nil
	}
	at, err := p.repo.git.line(ctx, "rev-parse", "--verify", "--quiet", "--end-of-options", p.From+"^{commit}")
	if err != nil {
		return banger.Errorf(banger.NotFound, "cannot begin the branch %s at %q: there is no such commit in %s", p.Branch, p.From, p.Root)
	}
	p.Head = at
	return nil
}

// look says what goes in and what stays.
func (p *Plan) look(ctx context.Context) (err error) {
	if p.Modules, err = p.repo.modules(ctx, p.status); err != nil {
		return err
	}
	if len(p.Modules) > 0 && p.Mode == Overlay {
		return p.refuseModules()
	}
	if p.From != "" {
		p.noteFrom()
		return nil
	}
	p.Changes = p.status.changes
	if p.Included, err = p.repo.included(ctx); err != nil {
		return err
	}
	others, nested := p.others()
	if p.Options.Untracked {
		p.Untracked = others
	} else {
		p.Left = len(others)
	}
	p.note(nested)
	return nil
}

// refuseModules says how submodules come in. Who brings in what is recorded has
// no flag for it.
func (p *Plan) refuseModules() error {
	err := banger.Errorf(banger.BadRequest, "cannot bring %s in: it has submodules, such as %s", p.Root, p.Modules[0].Path)
	if p.again {
		return err.Hint("banger vm workspace prepare %s %s --mode full brings them too", banger.ThisVM, banger.ShellWord(p.Root))
	}
	return err.Hint("--mode full brings them too")
}

// others are the untracked files that .bangerinclude does not name, and nested
// repositories, which stay.
func (p *Plan) others() (files, nested []string) {
	for _, path := range p.status.untracked {
		switch {
		case strings.HasSuffix(path, "/"):
			nested = append(nested, path)
		case !slices.Contains(p.Included, path):
			files = append(files, path)
		}
	}
	return files, nested
}

func (p *Plan) note(nested []string) {
	if op := p.repo.operation(); op != "" {
		p.Notes = append(p.Notes, "the "+op+" in progress does not travel, only the files as they are")
	} else if p.status.staged {
		p.Notes = append(p.Notes, "what is staged is not staged in the guest; the files are as they are")
	}
	for _, dir := range nested {
		p.Notes = append(p.Notes, "the repository inside this one stays: "+dir)
	}
}

func (p *Plan) noteFrom() {
	if len(p.status.changes) > 0 || len(p.status.untracked) > 0 {
		p.Notes = append(p.Notes, "uncommitted changes stay: with --from the files are those of "+p.From)
	}
}

// repository is one of the host's.
type repository struct {
	git    git
	root   string // the top of its work tree
	prefix string // where the person stands below it
	dir    string // its git directory
	common string // that of the repository whose worktree it is, else the same
	format string // of its ids: sha1 or sha256
	config config
}

// open finds the repository that a path lies in.
func open(ctx context.Context, path string) (repository, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return repository{}, banger.Errorf(banger.BadRequest, "cannot find %s: %w", path, err)
	}
	switch info, err := os.Stat(abs); {
	case errors.Is(err, os.ErrNotExist):
		return repository{}, banger.Errorf(banger.NotFound, "cannot bring %s in: there is no such directory", path)
	case err != nil:
		return repository{}, banger.Errorf(banger.BadRequest, "cannot bring %s in: %w", path, err)
	case !info.IsDir():
		return repository{}, banger.Errorf(banger.BadRequest, "cannot bring %s in: it is a file", path).Hint("banger vm cp %s VM:", banger.ShellWord(path))
	}
	r := repository{git: git{dir: abs}}
	configured := make(chan error, 1)
	go func() { // beside the other question: whoever starts a VM waits for both
		var err error
		r.config, err = readConfig(ctx, git{dir: abs})
		configured <- err
	}()
	out, err := r.git.run(ctx, "rev-parse", "--is-bare-repository", "--absolute-git-dir", "--git-common-dir",
		"--show-object-format", "--show-prefix", "--show-toplevel")
	unread := <-configured
	if err := r.understand(path, strings.Split(string(out), "\n"), err); err != nil {
		return r, err
	}
	r.git.dir = r.root
	r.git.settings = r.config.filtersOff()
	return r, banger.Wrap(unread, "cannot read the configuration of %s", r.root)
}

func (r *repository) understand(path string, lines []string, err error) error {
	var failed *gitError
	switch {
	case err != nil && !errors.As(err, &failed):
		return err
	case len(lines) > 0 && lines[0] == "true":
		return banger.Errorf(banger.BadRequest, "cannot bring %s in: it is a bare repository, without files", path).
			Hint("git clone %s makes one with files", banger.ShellWord(path))
	case err != nil && len(lines) > 1:
		return banger.Errorf(banger.BadRequest, "cannot bring %s in: it is inside a git directory", path)
	case err != nil && strings.Contains(failed.complaint, "not a git repository"):
		return banger.Errorf(banger.BadRequest, "cannot bring %s in: it is not in a git repository", path).
			Hint("git -C %s init makes it one", banger.ShellWord(path)).
			Hint("banger vm cp %s VM:/root/ copies it as it is", banger.ShellWord(path))
	case err != nil:
		return banger.Errorf(banger.BadRequest, "cannot bring %s in: %w", path, err)
	case len(lines) != 7:
		return banger.Errorf(banger.BadRequest, "cannot bring %s in: there is a line break in its path", path)
	}
	r.dir, r.common, r.format = lines[1], lines[2], lines[3]
	r.prefix, r.root = strings.TrimSuffix(lines[4], "/"), lines[5]
	if !filepath.IsAbs(r.common) {
		r.common = filepath.Join(r.git.dir, r.common)
	}
	return nil
}

// operations are what git leaves where something is under way.
var operations = []struct{ file, name string }{
	{"rebase-merge", "rebase"}, {"rebase-apply", "rebase"}, {"MERGE_HEAD", "merge"},
	{"CHERRY_PICK_HEAD", "cherry-pick"}, {"REVERT_HEAD", "revert"}, {"BISECT_LOG", "bisection"},
}

// operation names what is in progress, "" for nothing.
func (r repository) operation() string {
	for _, op := range operations {
		if _, err := os.Lstat(filepath.Join(r.dir, op.file)); err == nil {
			return op.name
		}
	}
	return ""
}

// included lists what .bangerinclude at the top brings in of what git does not
// track.
func (r repository) included(ctx context.Context) ([]string, error) {
	file := filepath.Join(r.root, ".bangerinclude")
	if _, err := os.Stat(file); err != nil {
		return nil, nil
	}
	all, err := r.git.list(ctx, "ls-files", "-z", "--others", "--ignored", "--exclude-from="+file)
	all = slices.DeleteFunc(all, func(path string) bool { return strings.HasSuffix(path, "/") })
	return all, banger.Wrap(err, "cannot follow %s", file)
}

// toolFiles name the tools of a repository, for mise.
var toolFiles = []string{".mise.toml", "mise.toml", ".tool-versions"}

// ToolFile is the file that names the repository's tools, "" for none.
func (p *Plan) ToolFile() string {
	for _, name := range toolFiles {
		if _, err := os.Stat(filepath.Join(p.Root, name)); err == nil {
			return name
		}
	}
	return ""
}

// HostProgram is where the host has a program, "" for nowhere.
func HostProgram(name string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return path
}

// Count says how many files would go in, and how many bytes they have.
func (p *Plan) Count(ctx context.Context) (files int, bytes int64, err error) {
	listed, err := p.repo.git.list(ctx, "ls-files", "-z")
	if p.From != "" {
		listed, err = p.repo.git.list(ctx, "ls-tree", "-r", "-z", "--name-only", "--full-tree", p.Head)
	}
	if err != nil {
		return 0, 0, banger.Wrap(err, "cannot read the repository %s", p.Root)
	}
	for _, path := range slices.Compact(slices.Concat(listed, p.Untracked, p.Included)) {
		info, err := os.Lstat(filepath.Join(p.Root, path))
		if err != nil || info.IsDir() {
			continue // deleted, or a submodule
		}
		files, bytes = files+1, bytes+info.Size()
	}
	return files, bytes, nil
}

// Again are the options of a repository that was brought in before.
func Again(w banger.Workspace) Options {
	o := Options{Path: w.SourcePath, Mode: w.Mode, Depth: w.Depth, Untracked: w.Untracked, From: w.From, again: true}
	if o.From != "" {
		o.Branch = w.Branch
	}
	return o
}
