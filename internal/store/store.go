// Package store keeps the ledger: the VMs and images banger knows, in one
// SQLite file.
//
// It holds rows and nothing else. It must not know what a row means to the
// world: no process, no file of a VM, no policy. Whoever calls it decides
// what may be deleted; the store only guarantees that what it acknowledged is
// on disk, that names and addresses are not given twice, and that nothing
// another program or another version wrote is lost.
package store

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"banger"

	"modernc.org/sqlite"
)

// pragmas are set on every connection. FULL, because a VM that was
// acknowledged must survive a power cut.
var pragmas = []string{
	"busy_timeout(5000)",
	"journal_mode(WAL)",
	"synchronous(FULL)",
	"foreign_keys(1)",
	"temp_store(MEMORY)",
	"wal_autocheckpoint(1000)",
	"journal_size_limit(67108864)",
}

// openPatience bounds how long Open repeats itself while others open the same
// new file: the switch to WAL does not honour busy_timeout (of 8 processes at
// once, 1 in 240 was told that the file is locked).
const openPatience = 10 * time.Second

// Store is an open database. It is safe for concurrent use, and other
// processes may have the same file open.
type Store struct {
	db *sql.DB
	// writer is held during a write: goroutines of one process queue here
	// at once, rather than in SQLite's busy handler, which sleeps.
	writer chan struct{}
	kept   statements
	memo   memo
}

// Open opens the database at path, makes it with mode 0600 where there is
// none, and upgrades an older one. The directory must exist.
//
// A file of another program, of a newer banger, or that is no database at
// all is refused before anything is written, in it or beside it.
func Open(ctx context.Context, path string) (*Store, error) {
	path, err := resolve(path)
	if err != nil {
		return nil, fail(err, "cannot open the database")
	}
	switch v, err := examineFile(ctx, path); {
	case err != nil:
		return nil, fail(err, "cannot open the database %s", path)
	case v.status == StatusMissing:
		if err := create(path); err != nil {
			return nil, fail(err, "cannot create the database %s", path)
		}
	case !v.usable():
		return nil, v.refusal(path)
	}
	db := connect(path, pragmas)
	s := &Store{db: db, writer: make(chan struct{}, 1), kept: statements{db: db}}
	if err := s.prepare(ctx); err != nil {
		s.db.Close()
		return nil, fail(err, "cannot open the database %s", path)
	}
	return s, nil
}

// Close ends all connections. The last process to close the file also folds
// the write-ahead log into it.
func (s *Store) Close() error {
	return fail(s.db.Close(), "cannot close the database")
}

// resolve makes path absolute and follows links, since SQLite puts its
// sidecars beside the file a link points at.
func resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if target, err := filepath.EvalSymlinks(abs); err == nil {
		return target, nil
	}
	return abs, nil
}

// create makes an empty file, which SQLite takes for an empty database; left
// to SQLite its mode would follow the umask. The sidecars copy it.
func create(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil // another process was faster
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// connect makes a pool for the existing file at path.
func connect(path string, pragmas []string) *sql.DB {
	lockByDescriptor()
	db, err := sql.Open("sqlite", dsn(path, pragmas))
	if err != nil {
		panic(err) // only for a driver that was not registered
	}
	// Connections cost a schema read and pragmas each, so they are kept.
	db.SetMaxOpenConns(4)
	db.SetMaxIdleConns(4)
	return db
}

// lockByDescriptor comes before a process's first lock. Its POSIX locks would end whenever
// it closes any descriptor of the file, as reading a private copy does.
func lockByDescriptor() { _, _ = sqlite.OFDLocking(true) }

// dsn escapes the path, which may hold what a URI gives a meaning to.
func dsn(path string, pragmas []string) string {
	u := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{
		"mode":      {"rw"},
		"_txlock":   {"immediate"}, // a write that begins as a read cannot be retried
		"_error_rc": {"1"},         // no leftover message of another failure
		"_pragma":   pragmas,
	}.Encode()}
	return u.String()
}

// prepare brings the file to this version's level.
func (s *Store) prepare(ctx context.Context) error {
	deadline := time.Now().Add(openPatience)
	for {
		err := s.prepareOnce(ctx)
		if !isBusy(err) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (s *Store) prepareOnce(ctx context.Context) error {
	var mode string
	if err := s.db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		// SQLite falls back in silence where memory cannot be shared.
		return banger.Errorf(banger.Unavailable, "its file system does not support a write-ahead log").
			Hint("set XDG_STATE_HOME to a directory on a local file system")
	}
	return migrate(ctx, s.db)
}

// write runs do in one transaction that holds the write lock from its start.
func (s *Store) write(ctx context.Context, do func(querier) error) error {
	select {
	case s.writer <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.writer }()
	w := within{kept: &s.kept}
	err := inTx(ctx, s.db, func(tx *sql.Tx) error {
		w.tx = tx
		return do(&w)
	})
	for _, text := range w.missing {
		s.kept.keep(ctx, text)
	}
	return err
}

func inTx(ctx context.Context, db *sql.DB, do func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		// SQLite has already rolled back after a full disk, and database/sql
		// after a cancelled context; the reason is err either way.
		_ = tx.Rollback()
		return err
	}
	return tx.Commit()
}

// querier is what a pool and a transaction have in common.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}
