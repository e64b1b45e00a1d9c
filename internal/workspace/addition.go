package workspace

import (
	"context"
	"path"
	"slices"
)

// addition is a submodule that a guest gets which has the repository already.
type addition struct {
	*delivery
	part
	work, clone string // in the guest

	begun    bool   // an earlier prepare was cut short amid it
	inTheWay string // what the guest has there of its own, in words, or ""
}

// sort tells the parts that the guest has from those that came to be since. What
// is in one of those is to come with it: outer ones are first among them, and inner
// ones among the others.
func (d *delivery) sort(ctx context.Context) (all []*renewal, added []*addition, err error) {
	for _, p := range slices.Backward(d.cargo.parts) {
		work, clone := path.Join(d.to.Path, p.files), path.Join(d.to.Path, p.gitDir)
		known, err := d.knows(ctx, p, work, clone, added)
		if err != nil {
			return nil, nil, err
		}
		if known {
			all = append(all, &renewal{delivery: d, part: p, work: work, gitDir: clone})
		} else {
			added = append(added, &addition{delivery: d, part: p, work: work, clone: clone})
		}
	}
	slices.Reverse(all)
	return all, added, nil
}

// knows says whether a guest has a part as it was brought in, the files too.
func (d *delivery) knows(ctx context.Context, p part, work, clone string, added []*addition) (bool, error) {
	if p.name == "" {
		return true, nil
	}
	for _, a := range added {
		if p.above == a.gitDir {
			return false, nil
		}
	}
	whole, err := d.to.has(ctx, path.Join(clone, sinceName))
	if err != nil || !whole {
		return false, err
	}
	return d.to.has(ctx, path.Join(work, ".git"))
}

// look finds out what the guest has of its own where a submodule is to come.
func (a *addition) look(ctx context.Context, all []*renewal) error {
	cloned, err := a.to.has(ctx, a.clone)
	if err != nil {
		return err
	}
	if cloned {
		return a.lookAtClone(ctx)
	}
	there, err := a.to.Guest.Look(ctx, a.work)
	if err != nil || there != Directory || a.compared(all) {
		return err
	}
	listed, err := a.ask(ctx, "", nil, "ls", "-A", "--", a.work)
	if err == nil && listed != "" {
		a.inTheWay = "the guest has files there"
	}
	return err
}

// lookAtClone tells a clone of the guest's own, or one whose files the guest took
// away, from one that a prepare did not get to the end of.
func (a *addition) lookAtClone(ctx context.Context) (err error) {
	if a.begun, err = a.to.has(ctx, path.Join(a.clone, baseName)); err != nil {
		return err
	}
	whole, err := a.to.has(ctx, path.Join(a.clone, sinceName))
	if whole || !a.begun {
		a.begun, a.inTheWay = false, "the guest has a clone of it"
	}
	return err
}

// compared says whether the repository that it is one of has it anew: who compares
// that one sees what is in the way.
func (a *addition) compared(all []*renewal) bool {
	for _, r := range all {
		for _, e := range r.changed {
			if e.mode == moduleMode && path.Join(r.files, e.path) == a.files {
				return true
			}
		}
	}
	return false
}

// add brings submodules in whole, once the repositories around them are as they
// are to be: those take away what was in their places.
func (d *delivery) add(ctx context.Context, added []*addition) error {
	for _, a := range added {
		if err := a.clear(ctx); err != nil {
			return err
		}
	}
	for _, a := range added {
		err := a.activate(ctx)
		if err == nil {
			err = d.unpack(ctx, func(s *sender) error { return d.send(s, a.part, func() error { return a.pack(ctx) }) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *addition) pack(ctx context.Context) error {
	return a.cannotRead(a.cargo.packWhole(ctx, a.part))
}

// clear takes away what the guest has there, which it was asked for.
func (a *addition) clear(ctx context.Context) error {
	if !a.begun && a.inTheWay == "" {
		return nil
	}
	_, err := a.answer(ctx, Command{Argv: []string{"rm", "-rf", "--", a.work, a.clone}, Root: true})
	return err
}

// activate has the guest's git take it for one of its submodules.
func (a *addition) activate(ctx context.Context) error {
	_, err := a.ask(ctx, "", nil, "git", "--git-dir="+path.Join(a.to.Path, a.above), "config", "submodule."+a.name+".active", "true")
	return err
}
