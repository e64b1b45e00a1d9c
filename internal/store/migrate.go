package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"
)

// migration is one step of the schema. Its id is its place in migrations,
// from 1. Once released, neither a name nor what it stands for changes:
// databases are recognised by them.
type migration struct {
	name  string
	apply func(ctx context.Context, tx *sql.Tx) error
}

// The first three are the steps of the tool whose databases are taken over.
// A database it left behind may have got its columns in another order or with
// other constraints, which is why the code that uses the tables trusts no
// constraint to be there.
var migrations = []migration{
	{"baseline", baseline},
	{"drop_images_docker", dropImagesDocker},
	{"add_vm_workspace", addVMWorkspace},
}

const baselineSQL = `
CREATE TABLE images (
	id                                TEXT PRIMARY KEY,
	name                              TEXT NOT NULL UNIQUE,
	managed                           INTEGER NOT NULL DEFAULT 0,
	artifact_dir                      TEXT NOT NULL DEFAULT '',
	rootfs_path                       TEXT NOT NULL,
	work_seed_path                    TEXT,
	kernel_path                       TEXT NOT NULL DEFAULT '',
	initrd_path                       TEXT NOT NULL DEFAULT '',
	modules_dir                       TEXT NOT NULL DEFAULT '',
	build_size                        TEXT NOT NULL DEFAULT '',
	seeded_ssh_public_key_fingerprint TEXT,
	docker                            INTEGER NOT NULL DEFAULT 0,
	created_at                        TEXT NOT NULL,
	updated_at                        TEXT NOT NULL
);
CREATE TABLE vms (
	id              TEXT PRIMARY KEY,
	name            TEXT NOT NULL UNIQUE,
	image_id        TEXT NOT NULL REFERENCES images(id) ON DELETE RESTRICT,
	guest_ip        TEXT NOT NULL UNIQUE,
	state           TEXT NOT NULL,
	created_at      TEXT NOT NULL,
	updated_at      TEXT NOT NULL,
	last_touched_at TEXT NOT NULL,
	spec_json       TEXT NOT NULL DEFAULT '{}',
	runtime_json    TEXT NOT NULL DEFAULT '{}',
	stats_json      TEXT NOT NULL DEFAULT '{}'
);`

func baseline(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, baselineSQL)
	return err
}

func dropImagesDocker(ctx context.Context, tx *sql.Tx) error {
	columns, err := columnsOf(ctx, tx, "images")
	if err != nil || !slices.Contains(columns, "docker") {
		return err
	}
	_, err = tx.ExecContext(ctx, "ALTER TABLE images DROP COLUMN docker")
	return err
}

func addVMWorkspace(ctx context.Context, tx *sql.Tx) error {
	columns, err := columnsOf(ctx, tx, "vms")
	if err != nil || slices.Contains(columns, "workspace_json") {
		return err
	}
	_, err = tx.ExecContext(ctx, "ALTER TABLE vms ADD COLUMN workspace_json TEXT NOT NULL DEFAULT '{}'")
	return err
}

const recordsSQL = `
CREATE TABLE IF NOT EXISTS schema_migrations (
	id         INTEGER PRIMARY KEY,
	name       TEXT NOT NULL,
	applied_at TEXT NOT NULL
)`

// migrate applies what is missing, each step in one transaction with its
// record. Each looks again under the write lock at what is there, because
// another process may be doing the same.
func migrate(ctx context.Context, db *sql.DB) error {
	for {
		v, err := examine(ctx, db)
		if err != nil || v.status == StatusCurrent {
			return err
		}
		if err := inTx(ctx, db, func(tx *sql.Tx) error { return step(ctx, tx) }); err != nil {
			return err
		}
	}
}

// step applies the next missing migration, if any.
func step(ctx context.Context, tx *sql.Tx) error {
	v, err := examine(ctx, tx)
	if err != nil {
		return err
	}
	if !v.usable() {
		return v.reason()
	}
	if v.level == len(migrations) {
		return nil
	}
	if _, err := tx.ExecContext(ctx, recordsSQL); err != nil {
		return err
	}
	next := migrations[v.level]
	if err := next.apply(ctx, tx); err != nil {
		return fmt.Errorf("migration %d %q: %w", v.level+1, next.name, err)
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO schema_migrations (id, name, applied_at) VALUES (?, ?, ?)",
		v.level+1, next.name, formatTime(time.Now()))
	return err
}

func columnsOf(ctx context.Context, q querier, table string) ([]string, error) {
	return texts(q.QueryContext(ctx, "SELECT name FROM pragma_table_info(?)", table))
}

// texts collects the rows of a query with one text column.
func texts(rows *sql.Rows, err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, rows.Err()
}
