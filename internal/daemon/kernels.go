package daemon

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"banger"
	"banger/internal/api"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/oci"
)

func (d *daemon) listKernels(ctx context.Context, in *struct {
	Available bool `query:"available" doc:"also those that could be pulled"`
}) ([]api.Kernel, error) {
	installed, err := d.kernels.List()
	if err != nil {
		return nil, err
	}
	users, err := d.kernelUsers(ctx)
	if err != nil {
		return nil, err
	}
	all, have := []api.Kernel{}, map[string]bool{}
	for _, k := range installed {
		have[k.Name] = true
		all = append(all, shownKernel(k, users.of(k)))
	}
	if !in.Available {
		return all, nil
	}
	for _, k := range d.kernels.Available() {
		if !have[k.Name] {
			all = append(all, api.Kernel{Kernel: k, State: "available", UsedBy: []string{}})
		}
	}
	return all, nil
}

func (d *daemon) showKernel(ctx context.Context, in *ofRef) (api.Kernel, error) {
	k, err := d.kernels.Get(in.Ref)
	if err != nil {
		return api.Kernel{}, err
	}
	return d.describeKernel(ctx, k)
}

func (d *daemon) describeKernel(ctx context.Context, k banger.Kernel) (api.Kernel, error) {
	users, err := d.kernelUsers(ctx)
	return shownKernel(k, users.of(k)), err
}

func shownKernel(k banger.Kernel, users []string) api.Kernel {
	return api.Kernel{Kernel: k, State: "installed", Path: k.Dir, UsedBy: list(users)}
}

// deleteKernel takes a name away. The entry behind it stays in use where
// another name points at it, so only the last name is refused.
func (d *daemon) deleteKernel(ctx context.Context, in *ofRef) error {
	d.claims.mu.Lock()
	defer d.claims.mu.Unlock()
	k, err := d.kernels.Get(in.Ref)
	if banger.CodeOf(err) == banger.NotFound {
		return d.kernels.Remove(in.Ref) // of a kernel that is gone the name may be there
	}
	if err != nil && k.Digest == "" { // and a damaged one goes
		return err
	}
	users, err := d.kernelUsers(ctx)
	if err != nil {
		return err
	}
	by, last := d.claims.by[k.Digest], in.Ref == k.Digest || d.onlyName(k)
	switch {
	case last && len(by) > 0:
		return banger.Errorf(banger.Busy, "cannot delete the kernel %s: it is used by the operation %s", in.Ref, by[0]).
			Hint("try again when that is done")
	case last && len(users.of(k)) > 0:
		return inUse("kernel", in.Ref, users.vms[k.Digest], users.images[k.Digest])
	}
	return d.kernels.Remove(in.Ref)
}

// claims are kernels that operations use which have written no row yet.
type claims struct {
	mu sync.Mutex          // held also while a kernel is deleted
	by map[string][]string // operations, by digest
}

// claimKernel finds a kernel that nobody deletes before release.
func (d *daemon) claimKernel(ctx context.Context, ref string) (k banger.Kernel, release func(), err error) {
	c, who := &d.claims, operationIn(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if k, err = d.kernels.Get(ref); err != nil {
		return k, nil, err
	}
	if c.by == nil {
		c.by = map[string][]string{}
	}
	c.by[k.Digest] = append(c.by[k.Digest], who)
	return k, sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		all := c.by[k.Digest]
		i := slices.Index(all, who)
		c.by[k.Digest] = slices.Delete(all, i, i+1)
	}), nil
}

// kernelUsers are the names of what uses kernels, by their digests.
type kernelUsers struct{ vms, images map[string][]string }

func (d *daemon) kernelUsers(ctx context.Context) (u kernelUsers, err error) {
	u.images = map[string][]string{}
	if u.vms, err = d.users(ctx, func(v banger.VM) string { return v.Spec.Kernel }); err != nil {
		return u, err
	}
	images, err := d.images.store.Images(ctx)
	for _, row := range images {
		// One that cannot be read is no use to anybody.
		if _, r, err := image.Load(d.images.recordDir(row)); err == nil && r.Kernel != "" {
			u.images[r.Kernel] = append(u.images[r.Kernel], row.Name)
		}
	}
	return u, err
}

func (u kernelUsers) of(k banger.Kernel) []string {
	all := slices.Clone(u.vms[k.Digest])
	for _, name := range u.images[k.Digest] {
		all = append(all, "image "+name)
	}
	return all
}

func (d *daemon) onlyName(k banger.Kernel) bool {
	all, err := d.kernels.List()
	names := 0
	for _, other := range all {
		if other.Digest == k.Digest {
			names++
		}
	}
	return err != nil || names <= 1
}

func (d *daemon) pullKernel(_ context.Context, in *given[api.PullKernel]) (job, error) {
	ask := in.Body
	pull := func(ctx context.Context, op *operation) (banger.Kernel, error) {
		return d.kernels.Pull(ctx, ask.Name, ask.Force, ask.Access, op.Stage)
	}
	err := banger.ValidateKernelName(ask.Name)
	if strings.ContainsAny(ask.Name, "/:") { // which no name has
		var ref oci.Ref
		ref, err = oci.Parse(ask.Name)
		pull = func(ctx context.Context, op *operation) (banger.Kernel, error) {
			return d.kernels.PullImage(ctx, ref, ask.As, ask.Access, d.images.builder.Cache, ask.Force, op.Stage)
		}
	} else if err == nil && ask.As != "" && ask.As != ask.Name {
		err = banger.Errorf(banger.BadRequest, "cannot pull the kernel %s as %s: it is of the catalogue, and has its name", ask.Name, ask.As).
			Hint("banger kernel pull %s", ask.Name)
	}
	return job{ask.Name, func(ctx context.Context, op *operation) (any, error) {
		k, err := pull(ctx, op)
		if err != nil {
			return nil, err
		}
		return d.describeKernel(ctx, k)
	}}, err
}

func (d *daemon) importKernel(_ context.Context, in *given[api.ImportKernel]) (job, error) {
	ask := in.Body
	for _, path := range []string{ask.From, ask.Vmlinuz, ask.Modules} {
		if path != "" && !filepath.IsAbs(path) {
			return job{}, banger.Errorf(banger.BadRequest, "cannot import a kernel from %q: the path is not absolute", path)
		}
	}
	req := kernel.ImportRequest{
		Name: ask.Name, Dir: ask.From, Vmlinuz: ask.Vmlinuz, Modules: ask.Modules,
		Distro: ask.Distro, Arch: ask.Arch,
	}
	return job{ask.Name, func(ctx context.Context, op *operation) (any, error) {
		op.Stage("import kernel " + ask.Name)
		k, err := d.kernels.Import(ctx, req)
		if err != nil {
			return nil, err
		}
		return d.describeKernel(ctx, k)
	}}, req.Check()
}
