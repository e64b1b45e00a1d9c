package workspace

import (
	"context"
	"os"
	"path/filepath"
	"strings"
)

// Module is a submodule that is checked out.
type Module struct {
	Name, Path string
	repo       repository
}

// modules lists the submodules of a work tree that are there.
func (r repository) modules(ctx context.Context, _ status) ([]Module, error) {
	file := filepath.Join(r.root, ".gitmodules")
	if _, err := os.Stat(file); err != nil {
		return nil, nil
	}
	items, err := r.git.list(ctx, "config", "-z", "-f", file, "--get-regexp", `^submodule\..*\.path$`)
	if failed(err) == 1 {
		return nil, nil // none are named
	}
	if err != nil {
		return nil, err
	}
	tracked, err := r.trackedModules(ctx)
	if err != nil {
		return nil, err
	}
	top, err := filepath.EvalSymlinks(r.root)
	if err != nil {
		return nil, err
	}
	var all []Module
	for _, item := range items {
		key, path, _ := strings.Cut(item, "\n")
		name := strings.TrimSuffix(strings.TrimPrefix(key, "submodule."), ".path")
		dir := filepath.Join(r.root, path)
		if !tracked[path] || !filepath.IsLocal(path) || !filepath.IsLocal(name) {
			continue
		}
		if _, err := os.Lstat(filepath.Join(dir, ".git")); err != nil {
			continue // not checked out
		}
		repo, err := open(ctx, dir)
		if err != nil {
			return nil, err
		}
		if repo.root != filepath.Join(top, path) {
			continue // a symlink, or a configuration, that leads to another repository
		}
		all = append(all, Module{name, path, repo})
	}
	return all, nil
}

// trackedModules are the paths where the index has another repository's commit.
// The file .gitmodules came with the repository, and could name any.
func (r repository) trackedModules(ctx context.Context) (map[string]bool, error) {
	items, err := r.git.list(ctx, "ls-files", "-z", "--stage")
	tracked := map[string]bool{}
	for _, item := range items {
		if head, path, _ := strings.Cut(item, "\t"); strings.HasPrefix(head, moduleMode+" ") {
			tracked[path] = true
		}
	}
	return tracked, err
}
