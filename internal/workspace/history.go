package workspace

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// history is what of the commits goes in.
type history struct {
	tips    []string          // everything they reach, down to shallow
	shallow []string          // commits whose parents do not come along
	refs    map[string]string // what the clone calls them
	peeled  map[string]string // for a tag with a message, the commit
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// history says what goes in of the commits behind head: depth of them with their
// tags in an overlay, else all branches and tags.
func (s *stage) history(ctx context.Context, mode string, depth int) (h history, err error) {
	h.refs, h.peeled = map[string]string{}, map[string]string{}
	grafts, err := s.grafts()
	if err != nil {
		return h, err
	}
	switch {
	case mode == Full:
		h.shallow = grafts
		err = s.everything(ctx, &h)
	case s.head != "":
		if h.shallow, err = s.cut(ctx, depth, grafts); err == nil {
			err = s.tags(ctx, &h)
		}
	}
	if s.head != "" && s.branch != "" {
		h.refs["refs/heads/"+s.branch] = s.head
	}
	h.refs[baseRef] = s.base
	h.tips = append(h.tips, s.base)
	if s.head != "" {
		h.tips = append(h.tips, s.head)
	}
	for _, id := range h.refs {
		h.tips = append(h.tips, id)
	}
	slices.Sort(h.tips)
	h.tips = slices.Compact(h.tips)
	return h, err
}

// grafts are where the host's own history ends.
func (s *stage) grafts() ([]string, error) {
	content, err := os.ReadFile(filepath.Join(s.repo.common, "shallow"))
	if os.IsNotExist(err) {
		return nil, nil
	}
	return strings.Fields(string(content)), err
}

// cut finds the commits at which a history of this depth ends.
func (s *stage) cut(ctx context.Context, depth int, grafts []string) (ends []string, err error) {
	seen := map[string]bool{s.head: true}
	level := []string{s.head}
	for n := 1; len(level) > 0; n++ {
		parents, err := s.parents(ctx, level)
		if err != nil {
			return nil, err
		}
		var next []string
		for _, commit := range level {
			switch {
			case len(parents[commit]) == 0:
			case n == depth || slices.Contains(grafts, commit):
				ends = append(ends, commit)
			default:
				for _, p := range parents[commit] {
					if !seen[p] {
						seen[p], next = true, append(next, p)
					}
				}
			}
		}
		level = next
	}
	return ends, nil
}

// parents reads what commits say of theirs, whether those are there or not.
func (s *stage) parents(ctx context.Context, commits []string) (map[string][]string, error) {
	in := strings.NewReader(strings.Join(commits, "\n") + "\n")
	out, err := s.git.feed(ctx, in, "cat-file", "--batch=%(objectname) %(objectsize)")
	parents := map[string][]string{}
	for rest := string(out); rest != ""; {
		head, body, _ := strings.Cut(rest, "\n")
		id, size, _ := strings.Cut(head, " ")
		n := atoi(size)
		if n > len(body) {
			break
		}
		for line := range strings.Lines(body[:n]) {
			if p, ok := strings.CutPrefix(line, "parent "); ok {
				parents[id] = append(parents[id], strings.TrimSpace(p))
			} else if !strings.HasPrefix(line, "tree ") {
				break
			}
		}
		rest = strings.TrimPrefix(body[n:], "\n")
	}
	return parents, err
}

// tags finds the tags on head.
func (s *stage) tags(ctx context.Context, h *history) error {
	return s.list(ctx, h, "--points-at="+s.head, "refs/tags")
}

// everything finds all branches and tags. What is only stashed, or noted, stays.
func (s *stage) everything(ctx context.Context, h *history) error {
	return s.list(ctx, h, "refs/heads", "refs/tags", "refs/remotes")
}

func (s *stage) list(ctx context.Context, h *history, args ...string) error {
	out, err := s.repo.git.run(ctx, append([]string{"for-each-ref",
		"--format=%(refname) %(objectname) %(*objectname) %(symref)"}, args...)...)
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		if len(f) < 4 || f[3] != "" {
			continue // refs/remotes/origin/HEAD points at another
		}
		h.refs[f[0]] = f[1]
		if f[2] != "" {
			h.peeled[f[0]] = f[2]
		}
	}
	return err
}
