package daemon

import (
	"context"
	"time"

	"banger"
	"banger/internal/api"
	"banger/internal/vm"
)

func (d *daemon) suspendVM(ctx context.Context, in *ofRef) (job, error) {
	return d.vmJob(ctx, in.Ref, func(ctx context.Context, id string, op *operation) (vm.View, error) {
		return d.vms.Suspend(ctx, id, op)
	})
}

func (d *daemon) forkVM(ctx context.Context, in *toRef[api.ForkVM]) (job, error) {
	row, err := d.findVM(ctx, in.Ref)
	if err != nil {
		return job{}, err
	}
	how := vm.Fork(or(in.Body))
	if err := how.Check(); err != nil {
		return job{}, err
	}
	return job{row.Name, func(ctx context.Context, op *operation) (any, error) {
		forks, err := d.vms.Fork(ctx, row.ID, how, op)
		if err != nil {
			return nil, err
		}
		out := api.Forks{PauseMillis: float64(forks.Pause) / float64(time.Millisecond)}
		for _, v := range forks.VMs {
			out.VMs = append(out.VMs, shown(v))
		}
		return out, nil
	}}, nil
}

func (d *daemon) listSnapshots(ctx context.Context, in *ofRef) ([]banger.Snapshot, error) {
	row, err := d.findVM(ctx, in.Ref)
	if err != nil {
		return nil, err
	}
	all, err := d.vms.Snapshots(ctx, row.ID)
	return list(all), err
}

func (d *daemon) createSnapshot(ctx context.Context, in *toRef[api.CreateSnapshot]) (job, error) {
	name := or(in.Body).Name
	if name != "" {
		if err := banger.ValidateSnapshotName(name); err != nil {
			return job{}, err
		}
	}
	row, err := d.findVM(ctx, in.Ref)
	if err != nil {
		return job{}, err
	}
	return job{row.Name, func(ctx context.Context, op *operation) (any, error) {
		s, err := d.vms.CreateSnapshot(ctx, row.ID, name, op)
		if err != nil {
			return nil, err
		}
		return s, nil
	}}, nil
}

func (d *daemon) restoreSnapshot(ctx context.Context, in *struct {
	Ref      string `path:"ref"`
	Snapshot string `path:"snapshot"`
	Body     *api.RestoreSnapshot
}) (job, error) {
	return d.vmJob(ctx, in.Ref, func(ctx context.Context, id string, op *operation) (vm.View, error) {
		return d.vms.RestoreSnapshot(ctx, id, in.Snapshot, or(in.Body).Force, op)
	})
}

func (d *daemon) deleteSnapshot(ctx context.Context, in *struct {
	Ref      string `path:"ref"`
	Snapshot string `path:"snapshot"`
}) error {
	row, err := d.findVM(ctx, in.Ref)
	if err != nil {
		return err
	}
	return d.vms.DeleteSnapshot(ctx, row.ID, in.Snapshot)
}
