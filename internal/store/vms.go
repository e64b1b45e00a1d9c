package store

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"banger"

	sqlite3 "modernc.org/sqlite/lib"
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
	vms, err := listVMs(ctx, s.db, "")
	return vms, fail(err, "cannot list VMs")
}

// VMsUsingImage lists the VMs made from an image, oldest first.
func (s *Store) VMsUsingImage(ctx context.Context, imageID string) ([]banger.VM, error) {
	vms, err := listVMs(ctx, s.db, "WHERE image_id = ? ", imageID)
	return vms, fail(err, "cannot list the VMs of image %s", imageID)
}

func listVMs(ctx context.Context, q querier, where string, args ...any) ([]banger.VM, error) {
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
		vms = append(vms, r.vm())
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
	r, found, err := findVM(ctx, s.db, column, value)
	if err == nil && !found {
		err = noVM
	}
	if err != nil {
		return banger.VM{}, fail(err, "cannot find VM %s", value)
	}
	return r.vm(), nil
}

var noVM = &banger.Error{Code: banger.NotFound, Message: "there is no such VM", Hints: []string{"banger ps -a"}}

func findVM(ctx context.Context, q querier, column, value string) (r vmRow, found bool, err error) {
	err = q.QueryRowContext(ctx, selectVMs+"WHERE "+column+" = ? ORDER BY rowid LIMIT 1", value).Scan(r.columns()...)
	if errors.Is(err, sql.ErrNoRows) {
		return vmRow{}, false, nil
	}
	return r, err == nil, err
}

// UpsertVM writes a VM's row but for two things: CreatedAt of an existing row
// stays, and Workspace is never written (see SetWorkspace). UpdatedAt becomes
// now, and LastTouchedAt never goes back. A name or address that another row
// has is AlreadyExists.
func (s *Store) UpsertVM(ctx context.Context, vm banger.VM) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		old, found, err := findVM(ctx, tx, "id", vm.ID)
		if err != nil {
			return err
		}
		if !found {
			return insertVM(ctx, tx, vm)
		}
		return updateVM(ctx, tx, old, vm)
	})
	return fail(err, "cannot save VM %s", vm.Name)
}

// insertVM writes a new row. A zero time is now.
func insertVM(ctx context.Context, tx *sql.Tx, vm banger.VM) error {
	if err := checkFree(ctx, tx, vmRow{}, vm); err != nil {
		return err
	}
	now := time.Now()
	if vm.CreatedAt.IsZero() {
		vm.CreatedAt = now
	}
	if vm.LastTouchedAt.IsZero() {
		vm.LastTouchedAt = vm.CreatedAt
	}
	spec, runtime, stats, err := encodeVM(vmRow{}, vm)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO vms (id, name, image_id, guest_ip, state, created_at, updated_at,
		last_touched_at, spec_json, runtime_json, stats_json, workspace_json) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '{}')`,
		vm.ID, vm.Name, vm.ImageID, vm.GuestIP, string(vm.State), formatTime(vm.CreatedAt), formatTime(now),
		formatTime(vm.LastTouchedAt), spec, runtime, stats)
	return explain(err, vm)
}

func updateVM(ctx context.Context, tx *sql.Tx, old vmRow, vm banger.VM) error {
	if err := checkFree(ctx, tx, old, vm); err != nil {
		return err
	}
	spec, runtime, stats, err := encodeVM(old, vm)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE vms SET name = ?, image_id = ?, guest_ip = ?, state = ?, updated_at = ?,
		last_touched_at = ?, spec_json = ?, runtime_json = ?, stats_json = ? WHERE id = ?`,
		vm.Name, vm.ImageID, vm.GuestIP, string(vm.State), formatTime(time.Now()),
		later(old.touched, vm.LastTouchedAt), spec, runtime, stats, vm.ID)
	return explain(err, vm)
}

func encodeVM(old vmRow, vm banger.VM) (spec, runtime, stats string, err error) {
	vm.Runtime.GuestIP = vm.GuestIP
	spec, err1 := encode(old.spec, vm.Spec)
	runtime, err2 := encode(old.runtime, vm.Runtime)
	stats, err3 := encode(old.stats, vm.Stats)
	return spec, runtime, stats, errors.Join(err1, err2, err3)
}

// later is the stored text unless t is after it.
func later(stored string, t time.Time) string {
	if t.After(parseTime(stored)) {
		return formatTime(t)
	}
	return stored
}

// checkFree refuses a name or an address that another row has. It does not
// leave this to the tables' constraints, which an old database may lack; and
// it asks only about what changes, so that rows which share one, from before,
// can still be saved.
func checkFree(ctx context.Context, tx *sql.Tx, old vmRow, vm banger.VM) error {
	if vm.Name != old.name {
		other, found, err := findVM(ctx, tx, "name", vm.Name)
		if err != nil {
			return err
		}
		if found && other.id != vm.ID {
			return banger.Errorf(banger.AlreadyExists, "there is a VM %s already", vm.Name).
				Hint("banger vm start %s", vm.Name).Hint("banger vm exec %s -- COMMAND", vm.Name)
		}
	}
	if vm.GuestIP != "" && vm.GuestIP != old.guestIP {
		other, found, err := findVM(ctx, tx, "guest_ip", vm.GuestIP)
		if err != nil {
			return err
		}
		if found && other.id != vm.ID {
			return banger.Errorf(banger.AlreadyExists, "its address %s is taken by VM %s", vm.GuestIP, other.name)
		}
	}
	return nil
}

// explain says which rule of the tables a VM's row broke.
func explain(err error, vm banger.VM) error {
	switch sqliteCode(err) {
	case sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
		return banger.Errorf(banger.NotFound, "there is no image %s", vm.ImageID).Hint("banger image list")
	case sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE:
		return banger.Errorf(banger.AlreadyExists, "its id, name or address is taken: %w", err)
	}
	return err
}

// SetState writes what a start or an end changes: the state and the runtime.
func (s *Store) SetState(ctx context.Context, id string, state banger.State, runtime banger.Runtime) error {
	return s.changeVM(ctx, id, func(tx *sql.Tx, old vmRow) error {
		runtime.GuestIP = old.guestIP
		text, err := encode(old.runtime, runtime)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "UPDATE vms SET state = ?, runtime_json = ?, updated_at = ? WHERE id = ?",
			string(state), text, formatTime(time.Now()), id)
		return err
	})
}

// SetStats writes a sample. It is no change of the VM: UpdatedAt stays.
func (s *Store) SetStats(ctx context.Context, id string, stats banger.Stats) error {
	return s.changeVM(ctx, id, func(tx *sql.Tx, old vmRow) error {
		text, err := encode(old.stats, stats)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "UPDATE vms SET stats_json = ? WHERE id = ?", text, id)
		return err
	})
}

// SetWorkspace records the repository that was brought in.
func (s *Store) SetWorkspace(ctx context.Context, id string, w banger.Workspace) error {
	return s.changeVM(ctx, id, func(tx *sql.Tx, old vmRow) error {
		text, err := encode(old.workspace, w)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "UPDATE vms SET workspace_json = ?, updated_at = ? WHERE id = ?",
			text, formatTime(time.Now()), id)
		return err
	})
}

func (s *Store) changeVM(ctx context.Context, id string, change func(*sql.Tx, vmRow) error) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		old, found, err := findVM(ctx, tx, "id", id)
		if err == nil && !found {
			err = noVM
		}
		if err != nil {
			return err
		}
		return change(tx, old)
	})
	return fail(err, "cannot save VM %s", id)
}

// TouchVMs moves LastTouchedAt of several VMs forward, in one commit. VMs
// that are gone are passed over.
func (s *Store) TouchVMs(ctx context.Context, touched map[string]time.Time) error {
	if len(touched) == 0 {
		return nil
	}
	err := s.write(ctx, func(tx *sql.Tx) error {
		for id, t := range touched {
			if err := touch(ctx, tx, id, t); err != nil {
				return err
			}
		}
		return nil
	})
	return fail(err, "cannot record when VMs were last used")
}

func touch(ctx context.Context, tx *sql.Tx, id string, t time.Time) error {
	old, found, err := findVM(ctx, tx, "id", id)
	if err != nil || !found {
		return err
	}
	_, err = tx.ExecContext(ctx, "UPDATE vms SET last_touched_at = ? WHERE id = ?", later(old.touched, t), id)
	return err
}

// DeleteVM removes a VM's row. One that is gone already is no error.
func (s *Store) DeleteVM(ctx context.Context, id string) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM vms WHERE id = ?", id)
		return err
	})
	return fail(err, "cannot delete VM %s", id)
}
