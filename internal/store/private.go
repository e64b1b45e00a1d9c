package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"banger"
	"banger/internal/artifact"
)

// errNotPlain is the reason for everything that cannot hold a database.
var errNotPlain = errors.New("it is not an SQLite database")

const sqliteMagic = "SQLite format 3\x00"

// copyTries bounds the attempts at a copy that no writer disturbed.
const copyTries = 50

// examineFile examines the database at path by way of a private copy: even a
// read-only connection would leave sidecars beside the original.
func examineFile(ctx context.Context, path string) (verdict, error) {
	var v verdict
	err := withCopy(ctx, path, func(db *sql.DB) (err error) {
		v, err = examine(ctx, db)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return missing(path)
	}
	if err != nil {
		return unreadable(err)
	}
	return v, nil
}

// missing tells a file that is not there from a directory that is not.
func missing(path string) (verdict, error) {
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		return verdict{}, err
	}
	return verdict{status: StatusMissing}, nil
}

// withCopy runs do on a private copy of the database, which may be written
// to, and removes it afterwards. What one that was killed left of its copy goes first.
func withCopy(ctx context.Context, path string, do func(*sql.DB) error) error {
	if err := checkPlain(path); err != nil {
		return err
	}
	scratch, err := artifact.NewScratch(os.TempDir(), "banger-state")
	if err != nil {
		return err
	}
	defer scratch.Close()
	private := filepath.Join(scratch.Dir, "state.db")
	if err := copyStill(ctx, path, private); err != nil {
		return err
	}
	// It is thrown away, so nothing needs to reach the disk.
	db := connect(private, []string{"synchronous(OFF)", "temp_store(MEMORY)"})
	return errors.Join(do(db), db.Close())
}

// checkPlain refuses what is not worth a copy, or would block.
func checkPlain(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w (it is not a regular file)", errNotPlain)
	}
	head, err := readHead(path, len(sqliteMagic))
	if err != nil {
		return err
	}
	if len(head) > 0 && string(head) != sqliteMagic {
		return errNotPlain
	}
	return nil
}

// copyStill copies the database with its logs, again and again until no
// writer came in between.
//
// A copy is sound when the write-ahead log was not begun anew meanwhile: all
// a checkpoint moved into the file is then also in the log, which is copied
// after it. Without a log the file itself must have stood still.
func copyStill(ctx context.Context, path, private string) error {
	for range copyTries {
		before, err := stamp(path)
		if err != nil {
			return err
		}
		for _, suffix := range []string{"", "-journal", "-wal"} {
			if err := copyFile(path+suffix, private+suffix); err != nil && (suffix == "" || !errors.Is(err, fs.ErrNotExist)) {
				return err
			}
		}
		after, err := stamp(path)
		if err != nil {
			return err
		}
		if before == after {
			return nil
		}
		for _, suffix := range []string{"-journal", "-wal"} {
			_ = os.Remove(private + suffix)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return banger.Errorf(banger.Busy, "it is being written to all the time").Hint("try again")
}

// walHeader is the length of a write-ahead log's header, whose salts change
// when the log is begun anew.
const walHeader = 32

// stamp is equal before and after a copy that can be relied on.
func stamp(path string) (string, error) {
	head, err := readHead(path+"-wal", walHeader)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if len(head) == walHeader {
		return string(head), nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	_, journal := os.Stat(path + "-journal")
	return fmt.Sprint(info.Size(), info.ModTime().UnixNano(), journal == nil), nil
}

// readHead reads up to n bytes from the beginning of a file.
func readHead(path string, n int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var head bytes.Buffer
	_, err = io.CopyN(&head, f, int64(n))
	if err != nil && err != io.EOF {
		return nil, err
	}
	return head.Bytes(), nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
