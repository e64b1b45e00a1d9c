package store

import (
	"context"
	"database/sql"
	"sync"
)

// statements runs texts as statements that are kept, a dozen in all: to parse one
// and plan it takes as long as all else of finding a VM. SQLite plans one again by
// itself when the tables have changed.
type statements struct {
	db *sql.DB

	mu    sync.Mutex
	known map[string]*sql.Stmt
}

// find is the statement of a text, nil where it is not kept.
func (s *statements) find(text string) *sql.Stmt {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known[text]
}

// keep has the statement of a text from now on. It takes a connection, and holds
// nothing while it waits for one. It is nil where none can be made: whoever runs
// the text itself hears why.
func (s *statements) keep(ctx context.Context, text string) *sql.Stmt {
	if known := s.find(text); known != nil {
		return known
	}
	made, err := s.db.PrepareContext(ctx, text)
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if faster := s.known[text]; faster != nil {
		_ = made.Close()
		return faster
	}
	if s.known == nil {
		s.known = map[string]*sql.Stmt{}
	}
	s.known[text] = made
	return made
}

func (s *statements) QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	if known := s.keep(ctx, text); known != nil {
		return known.QueryContext(ctx, args...)
	}
	return s.db.QueryContext(ctx, text, args...)
}

func (s *statements) QueryRowContext(ctx context.Context, text string, args ...any) *sql.Row {
	if known := s.keep(ctx, text); known != nil {
		return known.QueryRowContext(ctx, args...)
	}
	return s.db.QueryRowContext(ctx, text, args...)
}

func (s *statements) ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error) {
	if known := s.keep(ctx, text); known != nil {
		return known.ExecContext(ctx, args...)
	}
	return s.db.ExecContext(ctx, text, args...)
}

// within runs the statements that are kept as part of a transaction, and notes
// what is missing. To keep that would take a second connection: it must wait until
// the transaction has given back its own.
type within struct {
	kept    *statements
	tx      *sql.Tx
	missing []string
}

func (w *within) find(ctx context.Context, text string) *sql.Stmt {
	known := w.kept.find(text)
	if known == nil {
		w.missing = append(w.missing, text)
		return nil
	}
	return w.tx.StmtContext(ctx, known)
}

func (w *within) QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	if known := w.find(ctx, text); known != nil {
		return known.QueryContext(ctx, args...)
	}
	return w.tx.QueryContext(ctx, text, args...)
}

func (w *within) QueryRowContext(ctx context.Context, text string, args ...any) *sql.Row {
	if known := w.find(ctx, text); known != nil {
		return known.QueryRowContext(ctx, args...)
	}
	return w.tx.QueryRowContext(ctx, text, args...)
}

func (w *within) ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error) {
	if known := w.find(ctx, text); known != nil {
		return known.ExecContext(ctx, args...)
	}
	return w.tx.ExecContext(ctx, text, args...)
}
