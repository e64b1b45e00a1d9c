package store

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"strings"

	"banger"
)

// Inspection is what can be said of a database without touching it.
type Inspection struct {
	Path   string
	Status Status
	Level  int    // highest migration applied, 0 for an empty file
	Latest int    // level of this version
	Detail string // why it is not usable, in words; else empty
	VMs    []banger.VM
	Images []banger.Image
}

// Inspect reads the database at path without side effects: it works on a
// private copy of it and its log, so that the originals and the listing of
// their directory stay as they are. A file that is absent, another's, or
// broken is a Status; an error means that nothing could be found out.
//
// Rows come with every Status they can be read in.
func Inspect(ctx context.Context, path string) (Inspection, error) {
	i := Inspection{Latest: len(migrations)}
	path, err := resolve(path)
	if err != nil {
		return i, fail(err, "cannot inspect the database")
	}
	i.Path = path
	var v verdict
	err = withCopy(ctx, path, func(db *sql.DB) (err error) {
		v, err = i.read(ctx, db)
		return err
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		v = verdict{status: StatusMissing}
	case errors.Is(err, fs.ErrPermission):
		v = verdict{status: StatusUnreadable, detail: "it may not be read: " + err.Error()}
	case err != nil:
		if v, err = unreadable(err); err != nil {
			return i, fail(err, "cannot inspect the database %s", path)
		}
	}
	i.Status, i.Level, i.Detail = v.status, v.level, v.detail
	return i, nil
}

// read judges the copy and takes its rows. An older one is upgraded first:
// it is only a copy.
func (i *Inspection) read(ctx context.Context, db *sql.DB) (verdict, error) {
	v, err := examine(ctx, db)
	if err != nil || v.status == StatusForeign || v.status == StatusUnreadable {
		return v, err
	}
	if damage, err := check(ctx, db); err != nil || damage != "" {
		return verdict{status: StatusUnreadable, level: v.level, detail: "it is damaged: " + damage}, err
	}
	if v.status == StatusOlder {
		if err := migrate(ctx, db); err != nil {
			return v, err
		}
	}
	vms, err1 := listVMs(ctx, db, (*vmRow).vm, "")
	images, err2 := listImages(ctx, db)
	i.VMs, i.Images = vms, images
	if v.status == StatusNewer {
		return v, nil // it may have tables of another form
	}
	return v, errors.Join(err1, err2)
}

// check is SQLite's own opinion: the first thing wrong with the file, or
// nothing.
func check(ctx context.Context, db *sql.DB) (string, error) {
	found, err := texts(db.QueryContext(ctx, "PRAGMA quick_check(1)"))
	if err != nil || len(found) == 1 && found[0] == "ok" {
		return "", err
	}
	return strings.Join(strings.Fields(strings.Join(found, " ")), " "), nil
}
