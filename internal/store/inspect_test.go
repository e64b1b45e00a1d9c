package store

import (
	"os"
	"path/filepath"
	"testing"
)

func TestInspectLeavesNoTrace(t *testing.T) {
	for i, statements := range levels() {
		for _, open := range []bool{false, true} {
			path := newPath(t)
			db := raw(t, path)
			for _, statement := range statements {
				_, err := db.Exec(statement)
				must(t, err)
			}
			if !open {
				must(t, db.Close())
			}
			before := world(t, filepath.Dir(path))
			got, err := Inspect(t.Context(), path)
			must(t, err)
			want := StatusOlder
			if i+1 == len(migrations) {
				want = StatusCurrent
			}
			if got.Status != want || got.Level != i+1 || got.Latest != len(migrations) || got.Detail != "" {
				t.Errorf("level %d was inspected as %+v", i+1, got)
			}
			if names(got.VMs) != "early late" || len(got.Images) != 1 {
				t.Errorf("level %d: found VMs %q and images %v", i+1, names(got.VMs), got.Images)
			}
			if after := world(t, filepath.Dir(path)); after != before {
				t.Errorf("level %d, open %v: the directory changed", i+1, open)
			}
		}
	}
}

func TestInspectOfANewerDatabaseStillShowsItsRows(t *testing.T) {
	path := newPath(t)
	build(t, path, refused["a newer banger's"].statements...)
	got, err := Inspect(t.Context(), path)
	must(t, err)
	if got.Status != StatusNewer || got.Level != 4 || names(got.VMs) != "early late" {
		t.Errorf("inspected as %+v", got)
	}
}

func TestInspectOfNothing(t *testing.T) {
	path := newPath(t)
	for range 2 { // the first look makes nothing
		got, err := Inspect(t.Context(), path)
		must(t, err)
		if got.Status != StatusMissing {
			t.Errorf("inspected as %+v", got)
		}
	}
	got, err := Inspect(t.Context(), filepath.Join(path, "deeper", "state.db"))
	must(t, err)
	if got.Status != StatusMissing {
		t.Errorf("without a directory it was inspected as %+v", got)
	}
	must(t, os.WriteFile(path, nil, 0o600)) // what a crash at birth leaves
	got, err = Inspect(t.Context(), path)
	must(t, err)
	if got.Status != StatusOlder || got.Level != 0 || len(got.VMs) != 0 {
		t.Errorf("an empty file was inspected as %+v", got)
	}
	mustOpen(t, path)
}

func TestInspectFindsDamage(t *testing.T) {
	s := mustOpenWithImage(t)
	for _, name := range []string{"a", "b", "c"} {
		vm := mustReserve(t, s, name)
		vm.Runtime.LastError = string(make([]byte, 20000))
		must(t, s.UpsertVM(t.Context(), vm))
	}
	var path string
	must(t, s.db.QueryRow("SELECT file FROM pragma_database_list").Scan(&path))
	must(t, s.Close())
	info, err := os.Stat(path)
	must(t, err)
	must(t, os.Truncate(path, info.Size()/8192*4096))
	got, err := Inspect(t.Context(), path)
	must(t, err)
	if got.Status != StatusUnreadable || got.Detail == "" {
		t.Errorf("half a file was inspected as %s (%s)", got.Status, got.Detail)
	}
}

func TestStampChangesOnlyWhenACopyCannotBeTrusted(t *testing.T) {
	path := newPath(t)
	db := raw(t, path)
	run := func(statements ...string) string {
		t.Helper()
		for _, s := range statements {
			_, err := db.Exec(s)
			must(t, err)
		}
		got, err := stamp(path)
		must(t, err)
		return got
	}
	begun := run("PRAGMA journal_mode = WAL", "CREATE TABLE a (x)")
	if run("INSERT INTO a VALUES (1)") != begun {
		t.Error("it changed with a commit that only lengthens the log")
	}
	if run("PRAGMA wal_checkpoint(PASSIVE)") != begun {
		t.Error("it changed with a checkpoint, of which the log still has everything")
	}
	again := run("INSERT INTO a VALUES (2)")
	if again == begun {
		t.Error("it did not change when the log was begun anew")
	}
	if run("PRAGMA wal_checkpoint(TRUNCATE)") == again {
		t.Error("it did not change when the log was emptied")
	}
	must(t, db.Close())
	closed, err := stamp(path)
	must(t, err)
	build(t, path, "PRAGMA journal_mode = DELETE", "CREATE TABLE b (x)")
	if now, err := stamp(path); err != nil || now == closed {
		t.Errorf("it did not change with the file itself: %v", err)
	}
}
