package store

import (
	"context"
	"errors"
	"time"

	"banger"

	sqlite3 "modernc.org/sqlite/lib"
)

// UpsertVM writes a VM's row but for two things: CreatedAt of an existing row
// stays, and Workspace is never written (see SetWorkspace). UpdatedAt becomes
// now, and LastTouchedAt never goes back. A name or address that another row
// has is AlreadyExists.
func (s *Store) UpsertVM(ctx context.Context, vm banger.VM) error {
	err := s.write(ctx, func(tx querier) error {
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
func insertVM(ctx context.Context, tx querier, vm banger.VM) error {
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

func updateVM(ctx context.Context, tx querier, old vmRow, vm banger.VM) error {
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
func checkFree(ctx context.Context, tx querier, old vmRow, vm banger.VM) error {
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
	return s.changeVM(ctx, id, func(tx querier, old vmRow) error { return setState(ctx, tx, old, state, runtime) })
}

// SetStates is SetState for several VMs at once, by id: for all or for none.
func (s *Store) SetStates(ctx context.Context, state banger.State, runtimes map[string]banger.Runtime) error {
	err := s.write(ctx, func(tx querier) error {
		for id, runtime := range runtimes {
			old, found, err := findVM(ctx, tx, "id", id)
			if err == nil && !found {
				err = noVM()
			}
			if err == nil {
				err = setState(ctx, tx, old, state, runtime)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return fail(err, "cannot save %d VMs", len(runtimes))
}

func setState(ctx context.Context, tx querier, old vmRow, state banger.State, runtime banger.Runtime) error {
	runtime.GuestIP = old.guestIP
	text, err := encode(old.runtime, runtime)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "UPDATE vms SET state = ?, runtime_json = ?, updated_at = ? WHERE id = ?",
		string(state), text, formatTime(time.Now()), old.id)
	return err
}

// SetStats writes a sample. It is no change of the VM: UpdatedAt stays.
func (s *Store) SetStats(ctx context.Context, id string, stats banger.Stats) error {
	return s.changeVM(ctx, id, func(tx querier, old vmRow) error { return setStats(ctx, tx, old, stats) })
}

// ChangeStats changes the stats of several VMs, by id, in one commit, from what they
// are then; what is changed to false stays. VMs that are gone are passed over.
func (s *Store) ChangeStats(ctx context.Context, all map[string]func(banger.Stats) (banger.Stats, bool)) error {
	if len(all) == 0 {
		return nil
	}
	err := s.write(ctx, func(tx querier) error {
		for id, change := range all {
			old, found, err := findVM(ctx, tx, "id", id)
			if err != nil {
				return err
			}
			if !found {
				continue
			}
			if stats, changed := change(old.vm().Stats); changed {
				err = setStats(ctx, tx, old, stats)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return fail(err, "cannot record what VMs use")
}

func setStats(ctx context.Context, tx querier, old vmRow, stats banger.Stats) error {
	text, err := encode(old.stats, stats)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "UPDATE vms SET stats_json = ? WHERE id = ?", text, old.id)
	return err
}

// SetWorkspace records the repository that was brought in.
func (s *Store) SetWorkspace(ctx context.Context, id string, w banger.Workspace) error {
	return s.changeVM(ctx, id, func(tx querier, old vmRow) error { return setWorkspace(ctx, tx, &old, w) })
}

func setWorkspace(ctx context.Context, tx querier, row *vmRow, w banger.Workspace) (err error) {
	if row.workspace, err = encode(row.workspace, w); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "UPDATE vms SET workspace_json = ?, updated_at = ? WHERE id = ?",
		row.workspace, formatTime(time.Now()), row.id)
	return err
}

func (s *Store) changeVM(ctx context.Context, id string, change func(querier, vmRow) error) error {
	err := s.write(ctx, func(tx querier) error {
		old, found, err := findVM(ctx, tx, "id", id)
		if err == nil && !found {
			err = noVM()
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
	err := s.write(ctx, func(tx querier) error {
		for id, t := range touched {
			if err := touch(ctx, tx, id, t); err != nil {
				return err
			}
		}
		return nil
	})
	return fail(err, "cannot record when VMs were last used")
}

func touch(ctx context.Context, tx querier, id string, t time.Time) error {
	old, found, err := findVM(ctx, tx, "id", id)
	if err != nil || !found {
		return err
	}
	_, err = tx.ExecContext(ctx, "UPDATE vms SET last_touched_at = ? WHERE id = ?", later(old.touched, t), id)
	return err
}

// DeleteVM removes a VM's row. One that is gone already is no error.
func (s *Store) DeleteVM(ctx context.Context, id string) error {
	err := s.write(ctx, func(tx querier) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM vms WHERE id = ?", id)
		return err
	})
	return fail(err, "cannot delete VM %s", id)
}
