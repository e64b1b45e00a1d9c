package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"banger"

	sqlite3 "modernc.org/sqlite/lib"
)

// Status is what a file turned out to be.
type Status string

// What can be at the database's path.
const (
	StatusMissing    Status = "missing"    // nothing is there
	StatusCurrent    Status = "current"    // at this version's level
	StatusOlder      Status = "older"      // at a lower level: Open upgrades it
	StatusNewer      Status = "newer"      // a newer banger's
	StatusForeign    Status = "foreign"    // another program's
	StatusUnreadable Status = "unreadable" // not a database, damaged, or not permitted
)

// verdict is a status with its reason.
type verdict struct {
	status Status
	level  int    // highest migration applied, where banger's
	detail string // completes "cannot open …: "; empty where usable
}

func (v verdict) usable() bool { return v.status == StatusCurrent || v.status == StatusOlder }

// reason is why the file is refused, without naming it.
func (v verdict) reason() *banger.Error {
	switch v.status {
	case StatusNewer:
		return banger.Errorf(banger.BadVersion, "%s", v.detail).
			Hint("use the newer banger, or set XDG_STATE_HOME to another directory")
	case StatusForeign:
		return banger.Errorf(banger.BadVersion, "%s", v.detail).
			Hint("move the file away, or set XDG_STATE_HOME to another directory")
	}
	return banger.Errorf(banger.Unavailable, "%s", v.detail).
		Hint("banger doctor says more; to begin anew, move the file away")
}

func (v verdict) refusal(path string) error {
	return banger.Wrap(v.reason(), "cannot open the database %s", path)
}

// record is one row of schema_migrations.
type record struct {
	id   int
	name string
}

func (r record) String() string { return fmt.Sprintf("%d %q", r.id, r.name) }

// examine says whose database q is and how far it is migrated. It reads
// only. An error means that it could not find out.
func examine(ctx context.Context, q querier) (verdict, error) {
	tables, err := texts(q.QueryContext(ctx,
		`SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\_%' ESCAPE '\'`))
	if err != nil {
		return unreadable(err)
	}
	if len(tables) == 0 {
		return verdict{status: StatusOlder}, nil
	}
	if !slices.Contains(tables, "schema_migrations") {
		return verdict{status: StatusForeign, detail: "it belongs to another program (it has tables but no schema_migrations)"}, nil
	}
	records, err := applied(ctx, q)
	if err != nil {
		if sqliteCode(err)&0xff == sqlite3.SQLITE_ERROR { // no such column
			return verdict{status: StatusForeign, detail: "it belongs to another program (its schema_migrations is of another form)"}, nil
		}
		return unreadable(err)
	}
	v := compare(records, len(tables) > 1)
	if v.usable() && v.level > 0 {
		return withColumns(ctx, q, v)
	}
	return v, nil
}

func applied(ctx context.Context, q querier) ([]record, error) {
	// The casts are for another program's table, whose ids may be anything.
	rows, err := q.QueryContext(ctx,
		"SELECT coalesce(CAST(id AS INTEGER), 0), coalesce(name, '') FROM schema_migrations ORDER BY id")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []record
	for rows.Next() {
		var r record
		if err := rows.Scan(&r.id, &r.name); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, rows.Err()
}

// compare matches what a database records, in order of id, with what this
// version knows.
func compare(records []record, otherTables bool) verdict {
	if len(records) == 0 && otherTables {
		return verdict{status: StatusForeign, detail: "it belongs to another program (it has tables but no migration is recorded)"}
	}
	for i, r := range records {
		if i >= len(migrations) {
			return verdict{status: StatusNewer, level: records[len(records)-1].id, detail: fmt.Sprintf(
				"it was written by a newer banger (migration %v; this one knows %d)", r, len(migrations))}
		}
		if want := (record{i + 1, migrations[i].name}); r != want {
			return verdict{status: StatusForeign, detail: fmt.Sprintf(
				"it belongs to another program (migration %v where banger has %v)", r, want)}
		}
	}
	if len(records) < len(migrations) {
		return verdict{status: StatusOlder, level: len(records)}
	}
	return verdict{status: StatusCurrent, level: len(records)}
}

// Columns the code reads at every level.
var needed = map[string][]string{
	"images": {"id", "name", "managed", "artifact_dir", "rootfs_path", "work_seed_path", "kernel_path", "initrd_path",
		"modules_dir", "build_size", "seeded_ssh_public_key_fingerprint", "created_at", "updated_at"},
	"vms": {"id", "name", "image_id", "guest_ip", "state", "created_at", "updated_at", "last_touched_at",
		"spec_json", "runtime_json", "stats_json"},
}

// withColumns refuses a database whose records promise what its tables do not
// hold.
func withColumns(ctx context.Context, q querier, v verdict) (verdict, error) {
	for table, want := range needed {
		have, err := columnsOf(ctx, q, table)
		if err != nil {
			return unreadable(err)
		}
		want = slices.Clone(want)
		if table == "vms" && v.level >= 3 {
			want = append(want, "workspace_json")
		}
		missing := slices.DeleteFunc(want, func(c string) bool { return slices.Contains(have, c) })
		if len(missing) > 0 {
			return verdict{status: StatusUnreadable, level: v.level, detail: fmt.Sprintf(
				"it is damaged (table %s lacks %s)", table, strings.Join(missing, ", "))}, nil
		}
	}
	return v, nil
}

// unreadable turns what SQLite says about the file itself into a verdict and
// hands everything else on.
func unreadable(err error) (verdict, error) {
	switch sqliteCode(err) & 0xff {
	case sqlite3.SQLITE_NOTADB:
		return verdict{status: StatusUnreadable, detail: "it is not an SQLite database"}, nil
	case sqlite3.SQLITE_CORRUPT:
		return verdict{status: StatusUnreadable, detail: "it is damaged: " + err.Error()}, nil
	}
	if errors.Is(err, errNotPlain) {
		return verdict{status: StatusUnreadable, detail: err.Error()}, nil
	}
	return verdict{}, err
}
