package workspace

import (
	"context"
	"strings"
)

// status is how a work tree differs from its commit.
type status struct {
	head      string // "" before the first commit
	branch    string // "" where the head is detached
	changes   []Change
	untracked []string // a nested repository ends in a slash
	staged    bool
}

// status asks git. Submodules count by their commits.
func (r repository) status(ctx context.Context) (s status, err error) {
	items, err := r.git.list(ctx, "status", "-z", "--porcelain=v2", "--branch", "--no-renames",
		"--untracked-files=all", "--ignore-submodules=dirty")
	for _, item := range items {
		s.take(item)
	}
	return s, err
}

// take takes one item of git's porcelain format, version 2.
func (s *status) take(item string) {
	kind, rest, _ := strings.Cut(item, " ")
	switch kind {
	case "#":
		s.header(rest)
	case "1":
		f := strings.SplitN(rest, " ", 8)
		if len(f) == 8 {
			s.change(f[0], f[7])
		}
	case "u":
		f := strings.SplitN(rest, " ", 10)
		if len(f) == 10 {
			s.changes = append(s.changes, Change{'M', f[9]})
		}
	case "?":
		s.untracked = append(s.untracked, rest)
	}
}

func (s *status) header(line string) {
	key, value, _ := strings.Cut(line, " ")
	switch {
	case key == "branch.oid" && value != "(initial)":
		s.head = value
	case key == "branch.head" && value != "(detached)":
		s.branch = value
	}
}

// change takes a path with what is staged of it and what is not. What goes in
// is the file, whatever is staged.
func (s *status) change(xy, path string) {
	staged, work := xy[0], xy[1]
	s.staged = s.staged || staged != '.'
	kind := byte('M')
	switch {
	case work == 'D' || staged == 'D':
		kind = 'D'
	case staged == 'A' || work == 'A':
		kind = 'A'
	}
	s.changes = append(s.changes, Change{kind, path})
}

// files are the untracked ones, without nested repositories.
func (s status) files() (files []string) {
	for _, path := range s.untracked {
		if !strings.HasSuffix(path, "/") {
			files = append(files, path)
		}
	}
	return files
}

// paths are those that are not as in the index, or may not be, and those that
// are gone.
func (s status) paths() (changed, gone []string) {
	for _, c := range s.changes {
		if c.Kind == 'D' {
			gone = append(gone, c.Path)
		} else {
			changed = append(changed, c.Path)
		}
	}
	return changed, gone
}
