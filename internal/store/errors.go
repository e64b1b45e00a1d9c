package store

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"banger"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// fail says what could not be done and gives err the code a caller can act
// on. It is nil for a nil err.
func fail(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	what := fmt.Sprintf(format, args...)
	var known *banger.Error
	if errors.As(err, &known) {
		return banger.Wrap(err, "%s", what)
	}
	code, hint := classify(err)
	e := banger.Errorf(code, "%s: %w", what, err)
	if hint != "" {
		e = e.Hint("%s", hint)
	}
	return e
}

func classify(err error) (code banger.Code, hint string) {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return banger.Cancelled, ""
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return banger.NoSpace, hintNoSpace
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EROFS):
		return banger.Unavailable, hintUnwritable
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ENAMETOOLONG):
		return banger.Unavailable, hintUnwritable
	}
	full := sqliteCode(err)
	if full == sqlite3.SQLITE_IOERR_SHMSIZE {
		return banger.NoSpace, hintNoSpace
	}
	switch full & 0xff {
	case sqlite3.SQLITE_FULL:
		return banger.NoSpace, hintNoSpace
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return banger.Busy, "try again: another process is writing to the database"
	case sqlite3.SQLITE_INTERRUPT:
		return banger.Cancelled, ""
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return banger.Unavailable, hintUnwritable
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return banger.Internal, "banger doctor"
	}
	return banger.Internal, ""
}

const (
	hintNoSpace    = "free some disk space, for example with banger image cache prune"
	hintUnwritable = "the state directory must exist and be yours: see banger doctor, or set XDG_STATE_HOME"
)

// sqliteCode is the extended result code in err, or 0.
func sqliteCode(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code()
	}
	return 0
}

func isBusy(err error) bool {
	code, _ := classify(err)
	return err != nil && code == banger.Busy
}
