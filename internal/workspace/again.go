package workspace

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"banger"
)

// again moves what changed on the host since a repository was brought in. Where
// the guest changed the same, or went on to commits of its own, nothing is
// written. What only the guest changed stays.
func (d *delivery) again(ctx context.Context) error {
	d.keepBranch(ctx)
	all, added, err := d.sort(ctx)
	for _, r := range all {
		if err == nil {
			err = r.compare(ctx)
		}
	}
	for _, a := range added {
		if err == nil {
			err = a.look(ctx, all)
		}
	}
	if err == nil {
		err = d.refuse(all, added)
	}
	if err != nil {
		return err
	}
	d.done.Nothing = len(added) == 0
	for _, r := range all {
		if err := r.apply(ctx); err != nil {
			return err
		}
	}
	return d.add(ctx, added)
}

// keepBranch leaves the guest on a branch of its own, which the host has not got.
func (d *delivery) keepBranch(ctx context.Context) {
	p, own := d.cargo.plan, d.to.Record.Branch
	if own == "" || own == p.Branch || p.Options.Branch != "" {
		return
	}
	_, err := p.repo.git.run(ctx, "show-ref", "--verify", "--quiet", "refs/heads/"+own)
	if failed(err) == 1 {
		d.cargo.main.branch, d.done.Branch = own, own
	}
}

// refuse lists what was changed on both sides.
func (d *delivery) refuse(all []*renewal, added []*addition) error {
	var why []string
	for _, a := range added {
		if a.inTheWay != "" {
			why = append(why, fmt.Sprintf("%q is to be a submodule, and %s", a.files, a.inTheWay))
		}
	}
	for _, r := range all {
		for _, p := range r.conflicts {
			why = append(why, fmt.Sprintf("%q was changed on both sides", path.Join(r.files, p)))
		}
		if r.moved() && r.anything() {
			why = append(why, fmt.Sprintf("the guest is at %s, not at %s as brought in", short(r.guest.head), short(r.guest.given)))
		}
		if r.ahead && r.guest.tip != r.guest.head && r.anything() {
			why = append(why, fmt.Sprintf("the guest's branch %s is at %s, not at %s as brought in", r.branch, short(r.guest.tip), short(r.guest.given)))
		}
	}
	if len(why) == 0 || d.to.Force {
		return nil
	}
	const shown = 20
	if more := len(why) - shown; more > 0 {
		why = append(why[:shown], fmt.Sprintf("and %d more", more))
	}
	return banger.Errorf(banger.Conflict, "cannot bring %s in again: %s; nothing was written", d.cargo.plan.Root, strings.Join(why, ", ")).
		Hint("--force puts the host's state over the guest's")
}

// short is a commit for people.
func short(id string) string {
	if id == "" {
		return "no commit"
	}
	return id[:min(12, len(id))]
}

// renewal is one repository that is brought in once more.
type renewal struct {
	*delivery
	part
	work, gitDir string // in the guest

	guest     guestState
	old       map[string]entry // the tree as brought in before
	changed   []entry          // differ from it
	removed   []string         // are not there any more
	conflicts []string
	lost      []string // the paths of a commit that the host has no more
	ahead     bool     // the branch that is to be written has commits of the guest's own
	deeper    bool     // the guest is to have more of the history
	ends      []string // where it then ends
}

// guestState is what the guest says of its clone.
type guestState struct {
	ref   string            // what HEAD names, "" for a detached one
	head  string            // the commit, "" for none
	tip   string            // the commit of the branch that HEAD is to name, "" for none
	cut   bool              // a renewal ended amid its files
	ends  []string          // commits without what is behind them
	given string            // the commit it was given, "" for none
	base  string            // the same, where the host has it too
	dirty map[string]change // what the tree as brought in differs in from base
}

// change is an entry as it was and as it is; a mode "000000" is none.
type change struct{ from, to entry }

const noMode = "000000"

// probeScript asks for a clone's state, and for a branch of it, with as few
// processes as can be.
const probeScript = `read -r ref <"$GIT_DIR/HEAD" || exit
head=$(git rev-parse -q --verify HEAD) || head=
tip=$head cut=
[ "$ref" = "ref: $1" ] || tip=$(git rev-parse -q --verify "$1") || tip=
[ ! -e "$GIT_DIR/banger/next/begun" ] || cut=yes
ends=$(cat "$GIT_DIR/shallow" 2>/dev/null) || ends=
printf '%s\0' "$ref" "$head" "$tip" "$cut" "$ends"
git diff-tree -r -z --root --always --format=%P --no-renames refs/banger/base`

func (r *renewal) compare(ctx context.Context) error {
	err := r.probe(ctx)
	if err == nil {
		r.ahead, err = r.goneOn(ctx)
	}
	if err == nil {
		err = r.deepen(ctx)
	}
	if err != nil || len(r.changed)+len(r.removed) == 0 {
		return err
	}
	return r.findConflicts(ctx)
}

// goneOn says whether the branch that is to be written, be the guest on it or not,
// is at a commit that was not given to it and that nothing here leads to.
func (r *renewal) goneOn(ctx context.Context) (bool, error) {
	tip := r.guest.tip
	if tip == "" || tip == r.guest.given || r.head == "" || tip == r.head {
		return false, nil
	}
	out, err := r.repo.git.line(ctx, "rev-list", "--max-count=1", tip, "--not", r.head, "--all", "--reflog")
	if failed(err) != 0 {
		return true, nil // there is no such commit here
	}
	return out != "", err
}

// probe asks what the guest has and finds out what differs here.
func (r *renewal) probe(ctx context.Context) error {
	out, err := r.inClone(ctx, "", "sh", "-c", probeScript, "banger-probe", r.refName())
	if err != nil {
		return err
	}
	r.guest = parseState(split([]byte(out)))
	if err := r.guest.check(r.stage.base); err != nil {
		return banger.Wrap(err, "cannot look at %s in the guest", r.work)
	}
	if err := r.findOld(ctx); err != nil {
		return err
	}
	r.diff()
	return nil
}

// anything says whether the host has anything new.
func (r *renewal) anything() bool {
	return len(r.changed)+len(r.removed) > 0 || r.head != r.guest.given
}

// deepens says whether more of the history goes in also where nothing else does. A
// guest that has gone on has its references left alone, and gets it with the next news.
func (r *renewal) deepens() bool { return r.deeper && !r.moved() && !r.ahead }

// inClone runs something in the clone.
func (r *renewal) inClone(ctx context.Context, stdin string, argv ...string) (string, error) {
	return r.inIndex(ctx, "index", stdin, argv...)
}

// inBase is inClone with the index of the tree as brought in.
func (r *renewal) inBase(ctx context.Context, stdin string, argv ...string) (string, error) {
	return r.inIndex(ctx, baseName, stdin, argv...)
}

func (r *renewal) inIndex(ctx context.Context, index, stdin string, argv ...string) (string, error) {
	var out answer
	var complaint complaint
	c := Command{Argv: argv, Dir: r.work, Stdout: &out, Stderr: &complaint, Env: []string{
		"GIT_DIR=" + r.gitDir, "GIT_WORK_TREE=" + r.work, "GIT_INDEX_FILE=" + path.Join(r.gitDir, index), "GIT_OPTIONAL_LOCKS=0",
	}}
	if stdin != "" {
		c.Stdin = strings.NewReader(stdin)
	}
	status, err := r.to.Guest.Run(ctx, c)
	err = out.check(err)
	if err == nil && status != 0 {
		err = banger.Errorf(banger.Internal, "cannot look at %s in the guest: %s ended with status %d: %s",
			r.work, argv[0], status, strings.TrimSpace(complaint.String()))
	}
	return out.String(), err
}

func parseState(items []string) (s guestState) {
	s.dirty = map[string]change{}
	if len(items) < 5 {
		return s
	}
	s.ref, _ = strings.CutPrefix(items[0], "ref: ")
	if s.ref == items[0] {
		s.ref = ""
	}
	s.head, s.tip, s.cut, s.ends = items[1], items[2], items[3] != "", strings.Fields(items[4])
	rest := items[5:]
	if len(rest) > 0 {
		s.given, _, _ = strings.Cut(strings.TrimSpace(rest[0]), " ")
		s.base = s.given
		rest = rest[1:]
	}
	for _, c := range parseRaw(rest) {
		s.dirty[c.to.path] = c
	}
	return s
}

// check refuses names of commits that are none. The host's git is given them, and
// would take some words for its own options. like is a name of the host's.
func (s guestState) check(like string) error {
	for _, id := range []string{s.head, s.tip, s.given} {
		if id != "" && !isID(id, like) {
			return banger.Errorf(banger.Conflict, "it calls a commit %.80q", id)
		}
	}
	return nil
}

// parseRaw reads git's raw differences: ":MODE MODE ID ID KIND", PATH.
func parseRaw(items []string) (all []change) {
	for i := 0; i+1 < len(items); i += 2 {
		f := strings.Fields(strings.TrimPrefix(strings.TrimSpace(items[i]), ":"))
		if len(f) != 5 {
			break
		}
		p := items[i+1]
		all = append(all, change{entry{f[0], f[2], p}, entry{f[1], f[3], p}})
	}
	return all
}

// findOld puts together the tree as brought in: the commit's, which the host has
// as well, and what differed from it. Where the host has lost that commit, the
// guest tells all.
func (r *renewal) findOld(ctx context.Context) error {
	r.old = map[string]entry{}
	if r.guest.base != "" {
		listed, err := r.git.list(ctx, "ls-tree", "-r", "-z", "--full-tree", r.guest.base)
		if failed(err) != 0 {
			listed, err = r.tellAll(ctx)
		}
		if err != nil {
			return err
		}
		for _, item := range listed {
			head, p, _ := strings.Cut(item, "\t")
			if f := strings.Fields(head); len(f) == 3 {
				r.old[p] = entry{f[0], f[2], p}
			}
		}
	}
	for p, c := range r.guest.dirty {
		if c.to.mode == noMode {
			delete(r.old, p)
		} else {
			r.old[p] = c.to
		}
	}
	return nil
}

// tellAll has the guest list the tree as brought in, and what its commit had.
func (r *renewal) tellAll(ctx context.Context) ([]string, error) {
	r.guest.dirty, r.guest.base = nil, ""
	names, err := r.inClone(ctx, "", "git", "ls-tree", "-r", "-z", "--name-only", "--full-tree", baseRef+"^")
	if err != nil {
		return nil, err
	}
	r.lost = split([]byte(names))
	out, err := r.inClone(ctx, "", "git", "ls-tree", "-r", "-z", "--full-tree", baseRef)
	return split([]byte(out)), err
}

func (r *renewal) diff() {
	now := map[string]bool{}
	for _, e := range r.all {
		now[e.path] = true
		if r.old[e.path] != e {
			r.changed = append(r.changed, e)
		}
	}
	for p := range r.old {
		if !now[p] {
			r.removed = append(r.removed, p)
		}
	}
	slices.Sort(r.removed)
}

// moved says whether the guest has gone on from the commit it was given.
func (r *renewal) moved() bool { return r.guest.head != r.guest.given }

// stays says whether the guest's HEAD is its own: here the same branch is at the
// same commit as before, whatever branch the guest has made of it. For a
// submodule nobody noted the branch.
func (r *renewal) stays() bool {
	was := r.to.Record
	known := r.files == "" && was.GuestPath == r.to.Path && was.SourcePath == r.cargo.plan.Root
	return known && was.Branch == r.branch && r.head == r.guest.given && !r.moved() && !r.ahead
}
