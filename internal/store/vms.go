package store

import (
	"context"
	"database/sql"
	"errors"
	"slices"

	"banger"
)

// Rows of other hands may hold NULL anywhere.
const selectVMs = `SELECT id, coalesce(name, ''), coalesce(image_id, ''), coalesce(guest_ip, ''), coalesce(state, ''),
	coalesce(created_at, ''), coalesce(updated_at, ''), coalesce(last_touched_at, ''),
	coalesce(spec_json, ''), coalesce(runtime_json, ''), coalesce(stats_json, ''), coalesce(workspace_json, '') FROM vms `

// vmRow is a row of vms as it is stored, with NULL as the empty text.
type vmRow struct {
	id, name, imageID, guestIP, state string
	created, updated, touched         string
	spec, runtime, stats, workspace   string
}

func (r *vmRow) columns() []any {
	return []any{&r.id, &r.name, &r.imageID, &r.guestIP, &r.state, &r.created, &r.updated, &r.touched,
		&r.spec, &r.runtime, &r.stats, &r.workspace}
}

func (r *vmRow) vm() banger.VM {
	vm := banger.VM{
		ID: r.id, Name: r.name, ImageID: r.imageID, GuestIP: r.guestIP, State: banger.State(r.state),
		CreatedAt: parseTime(r.created), UpdatedAt: parseTime(r.updated), LastTouchedAt: parseTime(r.touched),
		Spec: banger.DefaultSpec(),
	}
	decode(r.spec, &vm.Spec)
	decode(r.runtime, &vm.Runtime)
	decode(r.stats, &vm.Stats)
	decode(r.workspace, &vm.Workspace)
	vm.Runtime.GuestIP = r.guestIP // the column wins
	return vm
}

// VMs lists all VMs, oldest first.
func (s *Store) VMs(ctx context.Context) ([]banger.VM, error) {
	vms, err := listVMs(ctx, &s.kept, s.memo.vm, "")
	s.memo.forgetAllBut(vms)
	return vms, fail(err, "cannot list VMs")
}

// VMsUsingImage lists the VMs made from an image, oldest first.
func (s *Store) VMsUsingImage(ctx context.Context, imageID string) ([]banger.VM, error) {
	vms, err := listVMs(ctx, &s.kept, s.memo.vm, "WHERE image_id = ? ", imageID)
	return vms, fail(err, "cannot list the VMs of image %s", imageID)
}

func listVMs(ctx context.Context, q querier, read func(*vmRow) banger.VM, where string, args ...any) ([]banger.VM, error) {
	rows, err := q.QueryContext(ctx, selectVMs+where+"ORDER BY rowid", args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var vms []banger.VM
	for rows.Next() {
		var r vmRow
		if err := rows.Scan(r.columns()...); err != nil {
			return nil, err
		}
		vms = append(vms, read(&r))
	}
	// By instant, which the text does not sort by: offsets differ.
	slices.SortStableFunc(vms, func(a, b banger.VM) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return vms, rows.Err()
}

// VM is the VM with this id.
func (s *Store) VM(ctx context.Context, id string) (banger.VM, error) {
	return s.oneVM(ctx, "id", id)
}

// VMByName is the VM with exactly this name. Of several, which only a
// database of another hand can hold, it is the first.
func (s *Store) VMByName(ctx context.Context, name string) (banger.VM, error) {
	return s.oneVM(ctx, "name", name)
}

func (s *Store) oneVM(ctx context.Context, column, value string) (banger.VM, error) {
	r, found, err := findVM(ctx, &s.kept, column, value)
	if err == nil && !found {
		err = noVM()
	}
	if err != nil {
		return banger.VM{}, fail(err, "cannot find VM %s", value)
	}
	return r.vm(), nil
}

func noVM() error {
	return banger.Errorf(banger.NotFound, "there is no such VM").Hint("banger ps -a")
}

func findVM(ctx context.Context, q querier, column, value string) (r vmRow, found bool, err error) {
	err = q.QueryRowContext(ctx, selectVMs+"WHERE "+column+" = ? ORDER BY rowid LIMIT 1", value).Scan(r.columns()...)
	if errors.Is(err, sql.ErrNoRows) {
		return vmRow{}, false, nil
	}
	return r, err == nil, err
}
