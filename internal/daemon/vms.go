package daemon

import (
	"context"
	"path"
	"time"

	"banger"
	"banger/internal/api"
	"banger/internal/vm"
)

func (d *daemon) listVMs(ctx context.Context, _ *none) ([]api.VM, error) {
	views, err := d.vms.List(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]api.VM, len(views))
	for i, v := range views {
		all[i] = shown(v)
	}
	return all, nil
}

func (d *daemon) showVM(ctx context.Context, in *ofRef) (api.VM, error) {
	return d.withVM(ctx, in.Ref, func(row banger.VM) (vm.View, error) { return d.vms.Get(ctx, row.ID) })
}

func (d *daemon) changeVM(ctx context.Context, in *struct {
	Ref  string `path:"ref"`
	Body api.ChangeVM
}) (api.VM, error) {
	c := in.Body
	if c.Ephemeral != nil && *c.Ephemeral {
		return api.VM{}, banger.Errorf(banger.BadRequest, "cannot make a VM ephemeral after its creation").
			Hint("banger run --rm makes one that goes when its command ends")
	}
	if c.Workspace != nil && !(path.IsAbs(c.Workspace.GuestPath) && path.IsAbs(c.Workspace.SourcePath)) {
		return api.VM{}, banger.Errorf(banger.BadRequest, "cannot note a workspace whose paths are not absolute")
	}
	return d.withVM(ctx, in.Ref, func(row banger.VM) (view vm.View, err error) {
		if c.Workspace != nil {
			view, err = d.vms.SetWorkspace(ctx, row.ID, *c.Workspace)
		} else {
			view, err = d.vms.Get(ctx, row.ID)
		}
		if err == nil && c.Name != nil {
			view, err = d.vms.Rename(ctx, row.ID, *c.Name)
		}
		if err == nil && c.Ephemeral != nil {
			view, err = d.vms.Keep(ctx, row.ID)
		}
		return view, err
	})
}

func (d *daemon) deleteVM(ctx context.Context, in *struct {
	Ref   string `path:"ref"`
	Force bool   `query:"force" doc:"also when it runs"`
}) error {
	row, err := d.findVM(ctx, in.Ref)
	if banger.CodeOf(err) == banger.NotFound {
		return nil
	} else if err != nil {
		return err
	}
	return d.vms.Delete(ctx, row.ID, in.Force)
}

func (d *daemon) createVM(_ context.Context, in *given[api.CreateVM]) (job, error) {
	c := vm.Create(in.Body)
	return job{c.Name, func(ctx context.Context, op *operation) (any, error) {
		return result(d.vms.Create(ctx, c, op))
	}}, c.Check()
}

func (d *daemon) startVM(ctx context.Context, in *toRef[api.StartVM]) (job, error) {
	how := or(in.Body)
	return d.vmJob(ctx, in.Ref, func(ctx context.Context, id string, op *operation) (vm.View, error) {
		return d.vms.Start(ctx, id, how.Cold, how.Wait, op)
	})
}

func (d *daemon) stopVM(ctx context.Context, in *toRef[api.StopVM]) (job, error) {
	timeout := stopTimeout(or(in.Body))
	return d.vmJob(ctx, in.Ref, func(ctx context.Context, id string, op *operation) (vm.View, error) {
		return d.vms.Stop(ctx, id, timeout, op)
	})
}

func (d *daemon) restartVM(ctx context.Context, in *toRef[api.StopVM]) (job, error) {
	timeout := stopTimeout(or(in.Body))
	return d.vmJob(ctx, in.Ref, func(ctx context.Context, id string, op *operation) (vm.View, error) {
		return d.vms.Restart(ctx, id, timeout, op)
	})
}

func stopTimeout(s api.StopVM) time.Duration {
	if s.TimeoutSeconds == 0 {
		return 10 * time.Second
	}
	return time.Duration(s.TimeoutSeconds * float64(time.Second))
}

func (d *daemon) killVM(ctx context.Context, in *toRef[api.KillVM]) (api.VM, error) {
	signal := or(in.Body).Signal
	if signal == "" {
		signal = "KILL"
	}
	return d.withVM(ctx, in.Ref, func(row banger.VM) (vm.View, error) { return d.vms.Kill(ctx, row.ID, signal) })
}

func (d *daemon) pauseVM(ctx context.Context, in *ofRef) (api.VM, error) {
	return d.withVM(ctx, in.Ref, func(row banger.VM) (vm.View, error) { return d.vms.Pause(ctx, row.ID) })
}

func (d *daemon) resumeVM(ctx context.Context, in *ofRef) (api.VM, error) {
	return d.withVM(ctx, in.Ref, func(row banger.VM) (vm.View, error) { return d.vms.Resume(ctx, row.ID) })
}

func (d *daemon) vmHealth(ctx context.Context, in *ofRef) (api.Health, error) {
	row, err := d.findVM(ctx, in.Ref)
	if err != nil {
		return api.Health{}, err
	}
	view, err := d.vms.Get(ctx, row.ID)
	if err != nil {
		return api.Health{}, err
	}
	uptime, problems, err := d.vms.Health(ctx, row.ID)
	return api.Health{State: view.State, UptimeSeconds: uptime, Problems: list(problems)}, err
}

func (d *daemon) vmStats(ctx context.Context, in *ofRef) (banger.Stats, error) {
	row, err := d.findVM(ctx, in.Ref)
	if err != nil {
		return banger.Stats{}, err
	}
	return d.vms.Stats(ctx, row.ID)
}

// findVM resolves a reference among the rows, which costs less than looking
// at every VM. The usual exact ones are asked for alone.
func (d *daemon) findVM(ctx context.Context, ref string) (banger.VM, error) {
	exact := d.rows.VMByName
	if banger.IsID(ref) {
		exact = d.rows.VM
	}
	if row, err := exact(ctx, ref); banger.CodeOf(err) != banger.NotFound {
		return row, err
	}
	all, err := d.rows.VMs(ctx)
	if err != nil {
		return banger.VM{}, err
	}
	return banger.Resolve("VM", ref, all)
}

func (d *daemon) withVM(ctx context.Context, ref string, act func(banger.VM) (vm.View, error)) (api.VM, error) {
	row, err := d.findVM(ctx, ref)
	if err != nil {
		return api.VM{}, err
	}
	view, err := act(row)
	return shown(view), err
}

// vmJob is an operation on the VM that ref names.
func (d *daemon) vmJob(ctx context.Context, ref string, act func(context.Context, string, *operation) (vm.View, error)) (job, error) {
	row, err := d.findVM(ctx, ref)
	if err != nil {
		return job{}, err
	}
	return job{row.Name, func(ctx context.Context, op *operation) (any, error) {
		return result(act(ctx, row.ID, op))
	}}, nil
}

func result(v vm.View, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return shown(v), nil
}

func shown(v vm.View) api.VM {
	image := v.ImageName
	if image == "" {
		image = v.ImageID
	}
	return api.VM{
		ID: v.ID, Name: v.Name, State: v.State, LastError: v.LastError,
		Image: image, ImageID: v.ImageID, GuestIP: v.GuestIP, HostAddress: v.HostAddress, Network: v.Spec.NetworkMode(),
		Spec: v.Spec, Runtime: v.Runtime, Stats: v.Stats, Workspace: v.Workspace,
		Isolation: list(v.Isolation), Dir: v.Dir, ShimPID: v.ShimPID, VMMPID: v.VMMPID,
		BootID: v.BootID, GuestKernel: v.GuestKernel, Foreign: v.Foreign,
		Parent: v.Spec.Parent, Template: v.Template, Restored: v.Restored, NotRestored: v.NotRestored, Trace: v.Trace,
		CreatedAt: v.CreatedAt, UpdatedAt: v.UpdatedAt, LastTouchedAt: v.LastTouchedAt,
	}
}

// list makes a list that is never null in JSON.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

// or is what p points at, or the zero value.
func or[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
