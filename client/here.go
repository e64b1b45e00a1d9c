package client

import (
	"context"
	"os"
	"path/filepath"

	"banger"
	"banger/internal/api"
)

// Here is the reference that means the VM whose workspace is the repository one
// stands in.
const Here = "."

// Resolve finds the VM that a reference means among all, Here included.
func Resolve(ref string, all []api.VM) (api.VM, error) {
	if ref != Here {
		return banger.Resolve("VM", ref, all)
	}
	root, err := repository()
	if err != nil {
		return api.VM{}, err
	}
	found := Of(root, all)
	switch len(found) {
	case 0:
		return api.VM{}, banger.Errorf(banger.NotFound, "no VM has the repository %s", root).
			Hint("banger vm run . makes one")
	case 1:
		return found[0], nil
	}
	names := make([]string, len(found))
	for i, vm := range found {
		names[i] = vm.Name
	}
	return api.VM{}, banger.Errorf(banger.Conflict, "the repository %s is in %d VMs: %q", root, len(found), names).
		Hint("give the name of one")
}

// Of are the VMs that a repository was brought into.
func Of(root string, all []api.VM) (found []api.VM) {
	for _, vm := range all {
		if vm.Workspace.SourcePath == root {
			found = append(found, vm)
		}
	}
	return found
}

// repository is the top of the one that the working directory is in. Looking for
// its .git is what git does, and takes no process.
func repository() (string, error) {
	start, err := os.Getwd()
	if err == nil {
		start, err = filepath.EvalSymlinks(start)
	}
	if err != nil {
		return "", banger.Errorf(banger.Internal, "cannot tell where this is: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
			return dir, nil
		}
		if dir == "/" {
			return "", banger.Errorf(banger.NotFound, "%s is in no git repository, so . means no VM", start).
				Hint("banger ps -a lists all VMs")
		}
	}
}

// named is ref as the daemon understands it.
func (c *Client) named(ctx context.Context, ref string) (string, error) {
	switch ref {
	case "":
		return "", noReference("VM")
	case Here:
		all, err := c.VMs(ctx)
		if err != nil {
			return "", err
		}
		vm, err := Resolve(ref, all)
		return vm.ID, err
	}
	return ref, nil
}
