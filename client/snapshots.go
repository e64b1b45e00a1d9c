package client

import (
	"context"
	"net/http"

	"banger"
	"banger/internal/api"
)

// Snapshots lists the snapshots of a VM, oldest first.
func (c *Client) Snapshots(ctx context.Context, ref string) (all []banger.Snapshot, err error) {
	err = c.vm(ctx, http.MethodGet, ref, "/snapshots", nil, &all)
	return all, err
}

// CreateSnapshot keeps a VM as it is now.
func (c *Client) CreateSnapshot(ctx context.Context, ref string, req api.CreateSnapshot, on Watch) (s banger.Snapshot, err error) {
	err = c.streamVM(ctx, ref, "/snapshots", req, on, &s)
	return s, err
}

// RestoreSnapshot takes a VM back to a snapshot, named by id, name or an
// unambiguous prefix of one. A VM that runs needs Force: conflict otherwise.
func (c *Client) RestoreSnapshot(ctx context.Context, ref, snapshot string, req api.RestoreSnapshot, on Watch) (vm api.VM, err error) {
	if snapshot == "" {
		return vm, noReference("snapshot")
	}
	err = c.streamVM(ctx, ref, at("/snapshots", snapshot, "/restore"), req, on, &vm)
	return vm, err
}

// DeleteSnapshot deletes a snapshot. The VM it is of is not changed.
func (c *Client) DeleteSnapshot(ctx context.Context, ref, snapshot string) error {
	if snapshot == "" {
		return noReference("snapshot")
	}
	return c.vm(ctx, http.MethodDelete, ref, at("/snapshots", snapshot, ""), nil, nil)
}
