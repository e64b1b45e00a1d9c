package store

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
)

// TestMain lets the test binary stand in for other processes.
func TestMain(m *testing.M) {
	if part := os.Getenv("STORE_TEST_PART"); part != "" {
		if err := parts[part](context.Background(), os.Getenv("STORE_TEST_PATH")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func newPath(t testing.TB) string { return filepath.Join(t.TempDir(), "state.db") }

func mustOpen(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// mustOpenWithImage opens a new store that holds the image "i1".
func mustOpenWithImage(t testing.TB) *Store {
	t.Helper()
	s := mustOpen(t, newPath(t))
	must(t, s.UpsertImage(t.Context(), banger.Image{ID: "i1", Name: "debian", RootfsPath: "/r"}))
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// raw opens a database as another program would, without the store.
func raw(t testing.TB, path string) *sql.DB {
	t.Helper()
	lockByDescriptor() // or a test that opens a database by hand first decides for all after it
	db, err := sql.Open("sqlite", path)
	must(t, err)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return db
}

// build makes a database by hand and closes it.
func build(t testing.TB, path string, statements ...string) {
	t.Helper()
	db := raw(t, path)
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	must(t, db.Close())
}

// query reads one value past the store.
func query(t testing.TB, s *Store, q string, args ...any) string {
	t.Helper()
	var v sql.NullString
	must(t, s.db.QueryRow(q, args...).Scan(&v))
	return v.String
}

// world describes every file under dir: name, mode, time and bytes.
func world(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %v %v", path, info.Mode(), info.ModTime())
		if info.Mode().IsRegular() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %q", text)
		}
		b.WriteString("\n")
		return nil
	}))
	return b.String()
}

func newVM(name string) banger.VM {
	return banger.VM{
		ID: banger.NewID(), Name: name, ImageID: "i1", State: banger.StateCreated,
		CreatedAt: time.Now(), Spec: banger.DefaultSpec(),
	}
}

func mustReserve(t testing.TB, s *Store, name string) banger.VM {
	t.Helper()
	vm, err := s.ReserveVM(t.Context(), newVM(name), "10.77.0.0/16")
	must(t, err)
	return vm
}

func names(vms []banger.VM) string {
	var all []string
	for _, vm := range vms {
		all = append(all, vm.Name)
	}
	return strings.Join(all, " ")
}

func wantError(t testing.TB, err error, code banger.Code, parts ...string) {
	t.Helper()
	if banger.CodeOf(err) != code {
		t.Fatalf("error %v has code %q, want %q", err, banger.CodeOf(err), code)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q does not say %q", err, p)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q has more than one line", err)
	}
}
