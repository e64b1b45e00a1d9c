package workspace

import (
	"context"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"

	"banger"
)

// Cargo is a plan made ready to go: the tree is written down, and a git
// directory for the guest is being made. It lies in a directory of the host's
// that Close removes.
type Cargo struct {
	plan  *Plan
	dir   string
	room  *room
	main  *stage
	parts []part // the repository itself last

	cancel  context.CancelFunc
	packing func() error // waits for the packs, which are begun when first asked for
}

// part is one repository of a cargo: the one asked for, or a submodule of it.
type part struct {
	*stage
	gitDir string // below the guest's path
	files  string // likewise

	name, above string // of a submodule, and the git directory that it is one of
}

// Load makes a plan ready. Nothing is written but in a directory for temporary
// files.
func (p *Plan) Load(ctx context.Context) (c *Cargo, err error) {
	room, err := newRoom()
	if err != nil {
		return nil, banger.Errorf(banger.Internal, "cannot make room for %s: %w", p.Root, err)
	}
	packing, cancel := context.WithCancel(ctx)
	c = &Cargo{plan: p, dir: room.dir, room: room, cancel: cancel}
	c.packing = sync.OnceValue(func() error { return c.packAll(packing) })
	if err = c.load(ctx); err != nil {
		c.Close()
		return nil, banger.Wrap(err, "cannot read the repository %s", p.Root)
	}
	return c, nil
}

// Pack begins to pack what a guest that has nothing needs.
func (c *Cargo) Pack() { go func() { _ = c.packing() }() }

// Close removes what was made for the cargo.
func (c *Cargo) Close() {
	c.cancel()
	_ = c.packing() // nobody writes there any more
	c.room.close()
}

func (c *Cargo) load(ctx context.Context) error {
	p := c.plan
	for _, m := range p.Modules {
		if err := c.loadModule(ctx, m, ".git", ""); err != nil {
			return err
		}
	}
	files := p.Root
	if p.From != "" {
		files = filepath.Join(c.dir, "files")
		if err := os.Mkdir(files, 0o755); err != nil {
			return err
		}
	}
	s, err := begin(p.repo, filepath.Join(c.dir, "git"), files)
	if err != nil {
		return err
	}
	if p.From != "" {
		err = s.takeCommit(ctx, p.Head)
	} else {
		changed, gone := p.status.paths()
		err = s.takeWorkTree(ctx, slices.Concat(changed, p.Untracked, p.Included), gone)
	}
	if err != nil {
		return err
	}
	if err := s.commit(ctx, p.Head, p.Branch); err != nil {
		return err
	}
	c.main = s
	c.parts = append(c.parts, part{stage: s, gitDir: ".git"})
	return s.write("config", p.repo.config.forGuest(p.repo.format, p.status.branch, ""))
}

// loadModule makes a submodule ready, and those in it.
func (c *Cargo) loadModule(ctx context.Context, m Module, under, above string) error {
	gitDir, files := path.Join(under, "modules", m.Name), path.Join(above, m.Path)
	st, err := m.repo.status(ctx)
	if err != nil {
		return err
	}
	inner, err := m.repo.modules(ctx, st)
	if err != nil {
		return err
	}
	for _, i := range inner {
		if err := c.loadModule(ctx, i, gitDir, files); err != nil {
			return err
		}
	}
	s, err := begin(m.repo, filepath.Join(c.dir, gitDir), m.repo.root)
	if err != nil {
		return err
	}
	changed, gone := st.paths()
	if c.plan.Options.Untracked {
		changed = append(changed, st.files()...)
	}
	if err := s.takeWorkTree(ctx, changed, gone); err != nil {
		return err
	}
	if err := s.commit(ctx, st.head, st.branch); err != nil {
		return err
	}
	back, err := filepath.Rel(gitDir, files)
	if err != nil {
		return err
	}
	c.parts = append(c.parts, part{s, gitDir, files, m.Name, under})
	return s.write("config", m.repo.config.forGuest(m.repo.format, st.branch, back))
}

// packAll packs the history of all parts, for a guest that has none.
func (c *Cargo) packAll(ctx context.Context) error {
	for _, p := range c.parts {
		if err := c.packWhole(ctx, p); err != nil {
			return p.cannotRead(err)
		}
	}
	return nil
}

// packWhole packs the history of one part.
func (c *Cargo) packWhole(ctx context.Context, p part) error {
	h, err := p.history(ctx, c.plan.Mode, c.plan.Depth)
	if err == nil {
		err = p.shallow(h.shallow)
	}
	if err == nil {
		err = p.pack(ctx, h.tips)
	}
	if err == nil {
		err = p.stage.refs(h.refs, h.peeled)
	}
	return err
}
