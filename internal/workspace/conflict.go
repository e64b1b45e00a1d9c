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
	var unclear []string
	for _, p := range sortedKeys(theirs) {
		gone := theirs[p] == "R"
		switch at, known := mine[p]; {
		case known && gone && at.mode == noMode: // on both sides
		case known && !gone && at.mode != noMode && !strings.Contains(p, "\n"):
			unclear = append(unclear, p)
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

// ruleOut takes paths for conflicts that do not hold what the host has there, or
// the beginning of it, as a prepare leaves it that was cut short.
func (r *renewal) ruleOut(ctx context.Context, paths []string) error {
	if len(paths) == 0 {
		return nil
	}
	kinds, err := r.inClone(ctx, joined(paths), "xargs", "-0", "stat", "-c", "%s %F", "--")
	if err != nil {
		return err
	}
	var files []string
	sizes := map[string]int64{}
	for i, line := range strings.Split(strings.TrimSuffix(kinds, "\n"), "\n") {
		size, kind, _ := strings.Cut(line, " ")
		if i < len(paths) && strings.HasPrefix(kind, "regular") {
			files = append(files, paths[i])
			sizes[paths[i]], _ = strconv.ParseInt(size, 10, 64)
		}
	}
	ids := map[string]string{}
	if len(files) > 0 {
		out, err := r.inClone(ctx, strings.Join(files, "\n")+"\n", "git", "hash-object", "--no-filters", "--stdin-paths")
		if err != nil {
			return err
		}
		for i, id := range strings.Fields(out) {
			if i < len(files) {
				ids[files[i]] = id
			}
		}
	}
	for _, p := range paths {
		same := r.sameLink(ctx, p)
		if ids[p] != "" {
			same = ids[p] == r.beginning(ctx, p, sizes[p])
		}
		if !same {
			r.conflicts = append(r.conflicts, p)
		}
	}
	slices.Sort(r.conflicts)
	return nil
}

// beginning is the id of the first bytes of a file of the host's, "" where it has
// not that many.
func (r *renewal) beginning(ctx context.Context, p string, size int64) string {
	f, err := os.Open(filepath.Join(r.stage.files, p))
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() < size {
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
