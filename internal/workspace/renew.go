package workspace

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
	"strings"
)

// next names what a renewal brings besides files: first "begun", which is there
// until all files are.
func (r *renewal) next(name string) string { return inside(path.Join(r.gitDir, ownDir, "next", name)) }

// apply brings in what changed: first away with what is gone, then files and
// objects, and the references last, so that a renewal that is cut short can be
// begun again.
func (r *renewal) apply(ctx context.Context) error {
	headMoved := r.head != r.guest.given || r.moved()
	if !r.anything() && !r.deepens() && (r.guest.ref == r.refName() || r.moved() || r.ahead || r.stays()) {
		return nil
	}
	r.done.Nothing = false
	if err := r.remove(ctx); err != nil {
		return err
	}
	shallow, err := r.packNews(ctx)
	if err != nil {
		return r.cannotRead(err)
	}
	head, err := r.indexNews(ctx, headMoved)
	if err != nil {
		return r.cannotRead(err)
	}
	err = r.unpack(ctx, func(s *sender) error { return r.send(s, shallow, head) })
	if err != nil {
		return err
	}
	_, err = r.inClone(ctx, "", "sh", "-c", finish)
	return err
}

// finish takes over what was sent into the clone's indexes and references.
const finish = `set -e
cd "$GIT_DIR/banger/next"
rm -f begun
GIT_INDEX_FILE=$GIT_DIR/banger/index git update-index -z --index-info <base
[ ! -s index ] || git update-index -z --index-info <index
[ ! -s deeper ] || rm -f "$GIT_DIR/shallow"
[ ! -s shallow ] || cat shallow >>"$GIT_DIR/shallow"
git update-ref --stdin <refs
[ ! -s HEAD ] || cp HEAD "$GIT_DIR/HEAD"
rm -rf "$GIT_DIR/banger/next"`

func (r *renewal) remove(ctx context.Context) error {
	if r.to.Force && len(r.conflicts) > 0 {
		list := joined(r.conflicts)
		if _, err := r.inClone(ctx, list, "xargs", "-0", "rm", "-rf", "--"); err != nil {
			return err
		}
	}
	if len(r.removed) == 0 {
		return nil
	}
	r.done.Removed += len(r.removed)
	_, err := r.inBase(ctx, joined(r.removed), "git", "--literal-pathspecs", "rm", "--quiet", "--force",
		"--ignore-unmatch", "--pathspec-from-file=-", "--pathspec-file-nul")
	return err
}

// packNews packs the objects that the guest has not got, and says where its
// history ends besides.
func (r *renewal) packNews(ctx context.Context) (shallow []string, err error) {
	tips := r.tips()
	if shallow, err = r.grafts(); err != nil {
		return nil, err
	}
	if r.cargo.plan.Mode == Overlay && r.head != "" {
		if shallow, err = r.overlayEnds(ctx, shallow); err != nil {
			return nil, err
		}
	}
	ends := shallow
	if r.guest.base != "" && !r.deeper {
		tips = append(tips, "^"+r.guest.base)
		if r.cargo.plan.Mode == Overlay {
			ends = append([]string{r.guest.base}, ends...)
		}
	}
	if r.deeper {
		shallow = r.ends
	}
	if err := r.shallow(ends); err != nil {
		return nil, err
	}
	out, err := r.git.run(ctx, append([]string{"rev-list", "--objects"}, tips...)...)
	if err != nil {
		return nil, err
	}
	return shallow, r.packObjects(ctx, strings.NewReader(r.unknown(string(out))))
}

// overlayEnds is where a shallow history ends that goes on in the one the guest
// has, or stands beside it.
func (r *renewal) overlayEnds(ctx context.Context, grafts []string) ([]string, error) {
	if r.head == r.guest.base {
		return nil, nil
	}
	if r.guest.base != "" {
		out, err := r.repo.git.run(ctx, "rev-list", "--parents", "--max-count=1000", r.guest.base+".."+r.head)
		if err == nil && linear(string(out), r.guest.base) {
			return nil, nil
		}
	}
	return r.cut(ctx, r.cargo.plan.Depth, grafts)
}

// linear says whether commits, the newest first, each with its parents, lead to
// base one after the other.
func linear(listed, base string) bool {
	var parent string
	for line := range strings.Lines(listed) {
		f := strings.Fields(line)
		if len(f) != 2 || parent != "" && f[0] != parent {
			return false
		}
		parent = f[1]
	}
	return parent == base
}

// unknown leaves out of a list of objects the files that the guest has.
func (r *renewal) unknown(listed string) string {
	known := map[string]bool{}
	for _, e := range r.old {
		known[e.id] = true
	}
	var b strings.Builder
	for line := range strings.Lines(listed) {
		id, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if !known[id] {
			b.WriteString(line)
		}
	}
	return b.String()
}

// indexNews is what changes in the index of the clone, for git update-index:
// what the new commit has otherwise than the one before. Of one that the host has
// lost everything goes, and with it what is staged in the guest.
func (r *renewal) indexNews(ctx context.Context, headMoved bool) (string, error) {
	if !headMoved {
		return "", nil
	}
	empty, err := r.git.feed(ctx, strings.NewReader(""), "hash-object", "-t", "tree", "--stdin")
	if err != nil {
		return "", err
	}
	from, to := r.guest.base, r.head
	if from == "" {
		from = strings.TrimSpace(string(empty))
	}
	if to == "" {
		to = strings.TrimSpace(string(empty))
	}
	items, err := r.git.list(ctx, "diff-tree", "-r", "-z", "--no-renames", from, to)
	var b strings.Builder
	for _, p := range r.lost {
		indexInfo(&b, entry{noMode, strings.Repeat("0", len(r.tree)), p})
	}
	for _, c := range parseRaw(items) {
		indexInfo(&b, c.to)
	}
	return b.String(), err
}

// indexInfo writes one entry as git update-index reads it. A mode of zeros
// takes it out.
func indexInfo(b *strings.Builder, e entry) {
	fmt.Fprintf(b, "%s %s\t%s\x00", strings.TrimPrefix(e.mode, "00000"), e.id, e.path)
}

func (r *renewal) send(s *sender, shallow []string, index string) error {
	var base strings.Builder
	for _, p := range r.removed {
		indexInfo(&base, entry{noMode, strings.Repeat("0", len(r.tree)), p})
	}
	for _, e := range r.changed {
		indexInfo(&base, e)
	}
	packs, err := filepath.Glob(filepath.Join(globbed(r.at), "objects/pack/*"))
	if err == nil {
		err = s.text(r.next("begun"), "")
	}
	if err != nil {
		return err
	}
	for _, file := range packs {
		if err := s.file(file, inside(path.Join(r.gitDir, "objects/pack", filepath.Base(file)))); err != nil {
			return err
		}
	}
	if err := s.tree(r.stage.files, inside(r.work), r.present(r.changed)); err != nil {
		return err
	}
	ends, deeper := "", ""
	if len(shallow) > 0 {
		ends = strings.Join(shallow, "\n") + "\n"
	}
	if r.deeper {
		deeper = "yes\n"
	}
	for _, f := range []struct{ name, content string }{
		{"base", base.String()}, {"index", index}, {"deeper", deeper}, {"shallow", ends}, {"refs", r.newRefs()}, {"HEAD", r.newHead()},
	} {
		if err := s.text(r.next(f.name), f.content); err != nil {
			return err
		}
	}
	return nil
}

// refName is what HEAD is to name in the guest, "" for a detached one.
func (r *renewal) refName() string {
	if r.branch == "" {
		return ""
	}
	return "refs/heads/" + r.branch
}

// newRefs is what git update-ref is to do.
func (r *renewal) newRefs() string {
	lines := "update " + baseRef + " " + r.base + "\n"
	kept := oldRef
	if r.moved() && r.guest.head != "" {
		lines += "update " + kept + " " + r.guest.head + "\n"
		kept = oldBranchRef
	}
	if r.ahead && !(r.moved() && r.guest.tip == r.guest.head) {
		lines += "update " + kept + " " + r.guest.tip + "\n"
	}
	if r.refName() != "" && r.head != "" && !r.stays() {
		lines += "update " + r.refName() + " " + r.head + "\n"
	}
	return lines
}

// newHead is the content of HEAD, "" to leave it.
func (r *renewal) newHead() string {
	switch {
	case r.stays():
	case r.refName() != "" && r.guest.ref != r.refName():
		return "ref: " + r.refName() + "\n"
	case r.refName() == "" && (r.guest.ref != "" || r.guest.head != r.head):
		return r.head + "\n"
	}
	return ""
}
