package workspace

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"banger"
)

// Target is where in a guest a repository goes.
type Target struct {
	Guest  Guest
	Path   string           // absolute
	Home   string           // of the user whose the files become
	User   string           // that user, "" for root
	Record banger.Workspace // what the ledger says was brought in before
	Force  bool             // over what is in the way
}

// Prepared is what was brought in.
type Prepared struct {
	banger.Workspace
	Files   int   // sent
	Bytes   int64 // sent, of files and of history
	Removed int   // files that the host has no more
	Nothing bool  // had changed
	NoGit   bool  // the guest has no git: files only
}

// Deliver brings a cargo into a guest. A second one of the same repository moves
// what changed; so does one after a first that was whole but never recorded.
func (c *Cargo) Deliver(ctx context.Context, to Target) (*Prepared, error) {
	there, err := to.look(ctx)
	if err != nil {
		return nil, err
	}
	d := &delivery{cargo: c, to: to, done: &Prepared{Workspace: c.record(to), NoGit: !there.git}}
	switch {
	case there.path == Nothing:
		err = d.first(ctx)
	case there.begun && !there.whole: // one that was cut short
		err = d.anew(ctx)
	case there.whole && there.git && d.same(ctx):
		err = d.again(ctx)
	case to.Force:
		err = d.anew(ctx)
	default:
		err = banger.Errorf(banger.Conflict, "cannot bring %s to %s: something is there already", c.plan.Root, to.Path).
			Hint("--guest-path DIR takes another place; --force deletes what is there and takes this one")
	}
	if err != nil {
		return nil, err
	}
	return d.done, nil
}

// same says whether what is there came from this repository. Where the ledger
// was not told, since banger was killed in between, the clone says it.
func (d *delivery) same(ctx context.Context) bool {
	if d.to.Record.GuestPath == d.to.Path && d.to.Record.SourcePath == d.cargo.plan.Root {
		return true
	}
	source, err := d.ask(ctx, "", nil, "cat", path.Join(d.to.Path, ".git", sourceName))
	return err == nil && source == d.cargo.plan.Root
}

func (c *Cargo) record(to Target) banger.Workspace {
	asked, depth := c.plan.Options, 0
	if asked.Depth > 1 {
		depth = asked.Depth
	}
	return banger.Workspace{
		GuestPath: to.Path, User: to.User, SourcePath: c.plan.Root, HeadCommit: c.main.head, PreparedAt: time.Now().UTC(),
		BaseTree: c.main.tree, Mode: c.plan.Mode, Branch: c.main.branch,
		Untracked: asked.Untracked, Depth: depth, From: asked.From,
	}
}

// delivery is one cargo on its way.
type delivery struct {
	cargo *Cargo
	to    Target
	done  *Prepared
}

// state is what a guest has where a repository is to go.
type state struct {
	path  Found
	git   bool // the guest has git
	begun bool // by banger
	whole bool
}

func (t Target) look(ctx context.Context) (s state, err error) {
	if s.git, err = t.has(ctx, "/usr/bin/git", "/usr/local/bin/git", "/bin/git"); err != nil {
		return s, err
	}
	if s.path, err = t.Guest.Look(ctx, t.Path); err != nil || s.path == Nothing {
		return s, err
	}
	// The directory alone says nothing: a clone of the guest's own may have it.
	if s.begun, err = t.has(ctx, path.Join(t.Path, ".git", baseName)); err == nil {
		s.whole, err = t.has(ctx, path.Join(t.Path, ".git", sinceName))
	}
	return s, err
}

// has says whether one of some paths is there.
func (t Target) has(ctx context.Context, paths ...string) (bool, error) {
	for _, p := range paths {
		if found, err := t.Guest.Look(ctx, p); err != nil || found != Nothing {
			return err == nil, err
		}
	}
	return false, nil
}

// gitConfig is the file that a guest's user gets whose git knows nobody.
func (t Target) gitConfig() string { return path.Join(t.Home, ".config/git/config") }

// anew takes away what is at the path and begins there.
func (d *delivery) anew(ctx context.Context) error {
	// The directory that it lies in may be another's.
	if _, err := d.answer(ctx, Command{Argv: []string{"rm", "-rf", "--", d.to.Path}, Root: true}); err != nil {
		return err
	}
	return d.first(ctx)
}

// ask runs something in the guest that has to succeed, and gives its answer.
func (d *delivery) ask(ctx context.Context, dir string, in io.Reader, argv ...string) (string, error) {
	return d.answer(ctx, Command{Argv: argv, Dir: dir, Stdin: in})
}

func (d *delivery) answer(ctx context.Context, c Command) (string, error) {
	var out answer
	var complaint complaint
	c.Stdout, c.Stderr = &out, &complaint
	status, err := d.to.Guest.Run(ctx, c)
	err = out.check(err)
	if err == nil && status != 0 {
		err = banger.Errorf(banger.Internal, "cannot prepare %s: %s in the guest ended with status %d: %s",
			d.to.Path, c.Argv[0], status, strings.TrimSpace(complaint.String()))
	}
	return out.String(), err
}

// first brings everything into a guest that has nothing.
func (d *delivery) first(ctx context.Context) error {
	identity, err := d.identity(ctx)
	if err != nil {
		return err
	}
	if !d.done.NoGit {
		d.cargo.Pack()
	}
	return d.unpack(ctx, func(s *sender) error {
		if identity != "" {
			if err := s.text(inside(d.to.gitConfig()), identity); err != nil {
				return err
			}
		}
		for _, p := range d.cargo.parts {
			if err := d.send(s, p, d.cargo.packing); err != nil {
				return err
			}
		}
		return nil
	})
}

// unpack sends one stream, whose names begin at the guest's root.
func (d *delivery) unpack(ctx context.Context, write func(*sender) error) error {
	return d.to.Guest.Unpack(ctx, "/", func(w io.Writer) error {
		large := bufio.NewWriterSize(w, 256<<10) // each frame of the wire costs the guest time
		s := newSender(large)
		if err := write(s); err != nil {
			return err
		}
		d.done.Files, d.done.Bytes = d.done.Files+s.Files, d.done.Bytes+s.Bytes
		return errors.Join(s.close(), large.Flush())
	})
}

// inside is a guest's path as a name in a stream.
func inside(p string) string { return strings.TrimPrefix(path.Clean(p), "/") }

// send sends one repository: what says that it was begun, its files while the
// history is still being packed, that, and last what says that it is whole.
func (d *delivery) send(s *sender, p part, packed func() error) error {
	files := inside(path.Join(d.to.Path, p.files))
	if d.done.NoGit {
		return s.tree(p.stage.files, files, p.present(p.all))
	}
	gitDir := inside(path.Join(d.to.Path, p.gitDir))
	if err := s.file(filepath.Join(p.at, baseName), path.Join(gitDir, baseName)); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := s.tree(p.stage.files, files, p.present(p.all)); err != nil {
		return err
	}
	if err := packed(); err != nil {
		return err
	}
	return p.sendGitDir(s, gitDir, files)
}

// identity is the user's own, unless the guest has one.
func (d *delivery) identity(ctx context.Context) (string, error) {
	id := d.cargo.plan.repo.config.identity()
	if id == "" || d.done.NoGit {
		return "", nil
	}
	known, err := d.to.has(ctx, path.Join(d.to.Home, ".gitconfig"), d.to.gitConfig())
	if known {
		id = ""
	}
	return id, err
}

// sendGitDir sends the git directory but for the index of the tree.
func (p part) sendGitDir(s *sender, to, files string) error {
	packs, err := filepath.Glob(filepath.Join(globbed(p.at), "objects/pack/*"))
	if err != nil {
		return err
	}
	for _, file := range packs {
		if err := s.file(file, path.Join(to, "objects/pack", filepath.Base(file))); err != nil {
			return err
		}
	}
	for _, name := range []string{"info/attributes", "info/exclude", "info/sparse-checkout", "shallow", "config", "packed-refs"} {
		if err := s.file(filepath.Join(p.at, name), path.Join(to, name)); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	if err := errors.Join(s.text(path.Join(to, sourceName), p.repo.root), p.sendIndex(s, to)); err != nil {
		return err
	}
	if err := s.directory(path.Join(to, "refs/heads")); err != nil {
		return err
	}
	if p.files != "" {
		link := fmt.Sprintf("gitdir: %s\n", back(files, to))
		if err := s.text(path.Join(files, ".git"), link); err != nil {
			return err
		}
	}
	return errors.Join(s.file(filepath.Join(p.at, "HEAD"), path.Join(to, "HEAD")), s.text(path.Join(to, sinceName), ""))
}

// back is the way from one directory of a stream to another.
func back(from, to string) string {
	rel, err := filepath.Rel("/"+from, "/"+to)
	if err != nil {
		return "/" + to
	}
	return rel
}

// sendIndex sends the index of the clone. That of a clean tree is the one that
// was sent: git replaces either and never writes into it.
func (p part) sendIndex(s *sender, to string) error {
	if p.clean {
		return s.hardLink(path.Join(to, baseName), path.Join(to, "index"))
	}
	err := s.file(filepath.Join(p.at, "index"), path.Join(to, "index"))
	if os.IsNotExist(err) {
		return nil // before the first commit
	}
	return err
}
