package workspace

import (
	"context"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"banger"
)

// findConflicts asks what the guest did to the paths that changed here. Few are
// asked for by name, many by looking at everything.
func (r *renewal) findConflicts(ctx context.Context) error {
	mine := map[string]entry{}
	for _, e := range r.changed {
		mine[e.path] = e
	}
	for _, p := range r.removed {
		mine[p] = entry{mode: noMode, path: p}
	}
	argv := []string{"git", "--literal-pathspecs", "ls-files", "-z", "-t", "--modified", "--deleted", "--others"}
	if len(mine) <= 200 {
		argv = append(append(argv, "--"), r.suspects(mine)...)
	}
	out, err := r.inBase(ctx, "", argv...)
	if err != nil {
		return err
	}
	theirs := parseTagged(split([]byte(out)))
	var unclear []entry
	for _, p := range sortedKeys(theirs) {
		gone := theirs[p] == "R"
		switch at, known := mine[p]; {
		case known && gone && at.mode == noMode: // on both sides
		case known && !gone && at.mode != noMode && !strings.Contains(p, "\n"):
			unclear = append(unclear, at)
		case known || r.inTheWay(p, mine):
			r.conflicts = append(r.conflicts, p)
		}
	}
	return r.ruleOut(ctx, unclear)
}

// parseTagged reads "TAG PATH". What is gone is listed as changed too.
func parseTagged(items []string) map[string]string {
	tags := map[string]string{}
	for _, item := range items {
		tag, p, _ := strings.Cut(item, " ")
		if p = strings.TrimSuffix(p, "/"); tags[p] != "R" {
			tags[p] = tag
		}
	}
	return tags
}

// suspects are the paths to ask for: those that change, and those above them
// that were no directories, where the guest may have put a file.
func (r *renewal) suspects(mine map[string]entry) []string {
	dirs := map[string]bool{".": true}
	for p := range r.old {
		for dir := path.Dir(p); !dirs[dir]; dir = path.Dir(dir) {
			dirs[dir] = true
		}
	}
	ask := map[string]bool{}
	for p := range mine {
		ask[p] = true
		for dir := path.Dir(p); !dirs[dir]; dir = path.Dir(dir) {
			ask[dir] = true
		}
	}
	return sortedKeys(ask)
}

// inTheWay says whether a path of the guest's is where a directory must come, or
// below where a file must.
func (r *renewal) inTheWay(p string, mine map[string]entry) bool {
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		if e, ok := mine[dir]; ok && e.mode != noMode {
			return true
		}
	}
	for q, e := range mine {
		if e.mode != noMode && strings.HasPrefix(q, p+"/") {
			return true
		}
	}
	return false
}

// ruleOut takes for conflicts what is not in the guest as the host has it.
func (r *renewal) ruleOut(ctx context.Context, entries []entry) error {
	if len(entries) == 0 {
		return nil
	}
	files, err := r.look(ctx, entries)
	if err == nil {
		err = r.name(ctx, files)
	}
	if err != nil {
		return err
	}
	there := map[string]guestFile{}
	for _, f := range files {
		there[f.path] = f
	}
	for _, e := range entries {
		same := r.sameLink(ctx, e.path)
		if f, ok := there[e.path]; ok {
			same = r.sameFile(ctx, e, f)
		}
		if !same {
			r.conflicts = append(r.conflicts, e.path)
		}
	}
	slices.Sort(r.conflicts)
	return nil
}

// guestFile is a file as the guest has it.
type guestFile struct {
	path       string
	size       int64
	executable bool
	id         string
}

// look finds the files among what the guest has at some paths.
func (r *renewal) look(ctx context.Context, entries []entry) (files []guestFile, err error) {
	var paths []string
	for _, e := range entries {
		paths = append(paths, e.path)
	}
	kinds, err := r.inClone(ctx, joined(paths), "xargs", "-0", "stat", "-c", "%s %a %F", "--")
	for i, line := range strings.Split(strings.TrimSuffix(kinds, "\n"), "\n") {
		f := strings.SplitN(line, " ", 3)
		if i >= len(paths) || len(f) < 3 || !strings.HasPrefix(f[2], "regular") {
			continue
		}
		size, _ := strconv.ParseInt(f[0], 10, 64)
		mode, _ := strconv.ParseUint(f[1], 8, 32)
		files = append(files, guestFile{path: paths[i], size: size, executable: mode&0o100 != 0})
	}
	return files, err
}

// name asks for git's names of files.
func (r *renewal) name(ctx context.Context, files []guestFile) error {
	if len(files) == 0 {
		return nil
	}
	var paths strings.Builder
	for _, f := range files {
		paths.WriteString(quoted(f.path) + "\n")
	}
	out, err := r.inClone(ctx, paths.String(), "git", "hash-object", "--no-filters", "--stdin-paths")
	ids := strings.Fields(out)
	if err == nil && len(ids) != len(files) {
		err = banger.Errorf(banger.Conflict, "cannot look at %s in the guest: its git named %d of %d files", r.work, len(ids), len(files))
	}
	if err != nil {
		return err
	}
	for i := range files {
		files[i].id = ids[i]
	}
	return nil
}

// sameFile says whether the guest's file is the host's. After a prepare that was
// cut short it is also where it is the beginning of it, with whatever permissions.
func (r *renewal) sameFile(ctx context.Context, e entry, f guestFile) bool {
	if f.id != r.beginning(ctx, e.path, f.size) {
		return false
	}
	modes := r.repo.config.all["core.filemode"] != "false"
	return r.guest.cut || !modes || f.executable == (e.mode == "100755")
}

// beginning is the id of the first bytes of a file of the host's, "" where it has
// not that many, or has more where no prepare was cut short.
func (r *renewal) beginning(ctx context.Context, p string, size int64) string {
	f, err := os.Open(filepath.Join(r.stage.files, p))
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() < size || info.Size() > size && !r.guest.cut {
		return ""
	}
	out, err := r.git.feed(ctx, io.LimitReader(f, size), "hash-object", "--no-filters", "--stdin")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// sameLink says whether both sides have the same symlink.
func (r *renewal) sameLink(ctx context.Context, p string) bool {
	here, err := os.Readlink(filepath.Join(r.stage.files, p))
	if err != nil {
		return false
	}
	there, err := r.inClone(ctx, "", "readlink", "-n", "--", p)
	return err == nil && there == here
}
