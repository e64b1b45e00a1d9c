package store

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

func TestOddStatePathsWork(t *testing.T) {
	for _, name := range []string{
		"with space", "what?mode=ro&x=1", "a#b", "100%41%", "größe-日本", "a+b;c'd\"e\\f", "new\nline", "file:x", "not\xffutf8",
		strings.Repeat("long", 50),
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), name)
			must(t, os.Mkdir(dir, 0o700))
			path := filepath.Join(dir, "state.db")
			s := mustOpen(t, path)
			must(t, s.UpsertImage(t.Context(), banger.Image{ID: "i1", Name: "debian", RootfsPath: "/r"}))
			must(t, s.Close())
			files, err := filepath.Glob(filepath.Dir(dir) + "/*")
			must(t, err)
			if len(files) != 1 {
				t.Errorf("it made files elsewhere: %q", files)
			}
			if _, err := os.Stat(path); err != nil {
				t.Error(err)
			}
			i, err := Inspect(t.Context(), path)
			must(t, err)
			if i.Status != StatusCurrent || len(i.Images) != 1 {
				t.Errorf("inspected as %+v", i)
			}
		})
	}
}

func TestManyOpenOneNewFileAtOnceInOneProcess(t *testing.T) {
	for range 20 {
		path := newPath(t)
		var group errgroup.Group
		for range 8 {
			group.Go(func() error {
				s, err := Open(t.Context(), path)
				if err != nil {
					return err
				}
				return s.Close()
			})
		}
		must(t, group.Wait())
	}
}

func TestOpenFollowsALinkAndARelativePath(t *testing.T) {
	target := newPath(t)
	mustOpen(t, target).Close()
	link := filepath.Join(t.TempDir(), "link.db")
	must(t, os.Symlink(target, link))
	t.Chdir(filepath.Dir(link))
	s := mustOpen(t, "link.db")
	mustReserveFails(t, s) // a write, so that there are sidecars
	if _, err := os.Stat(link + "-wal"); err == nil {
		t.Error("the log is beside the link, where a second opener would not look")
	}
}

func mustReserveFails(t *testing.T, s *Store) {
	t.Helper()
	_, err := s.ReserveVM(t.Context(), newVM("devbox"), "10.77.0.0/16")
	wantError(t, err, banger.NotFound, "cannot create VM devbox: there is no image i1")
}

func TestOpenWithoutADirectorySaysSo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "absent", "state.db")
	_, err := Open(t.Context(), path)
	wantError(t, err, banger.Unavailable, "absent", "no such file or directory")
}

func TestPragmasHoldOnEveryConnection(t *testing.T) {
	s := mustOpen(t, newPath(t))
	for range 3 { // held open together, so they are three
		c, err := s.db.Conn(t.Context())
		must(t, err)
		defer c.Close()
		for pragma, want := range map[string]string{
			"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000",
			"temp_store": "2", "wal_autocheckpoint": "1000", "journal_size_limit": "67108864",
		} {
			var got string
			must(t, c.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got))
			if got != want {
				t.Errorf("%s is %s, want %s", pragma, got, want)
			}
		}
	}
}

// Other processes would take the file for closed, and fold and remove the log
// under a live connection.
func TestReadingACopyKeepsTheLocksOfAnOpenStore(t *testing.T) {
	path := newPath(t)
	s := mustOpen(t, path)
	if _, err := s.VMs(t.Context()); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	locked := func() bool {
		l := unix.Flock_t{Type: unix.F_WRLCK, Start: 0x40000002, Len: 510} // SQLite's shared range
		must(t, unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l))
		return l.Type != unix.F_UNLCK
	}
	if !locked() {
		t.Fatal("an open store holds no lock: this test looks in the wrong place")
	}
	if _, err := Inspect(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, path)
	if !locked() {
		t.Error("the lock is gone")
	}
}

func TestFullDiskIsNoSpace(t *testing.T) {
	s := mustOpenWithImage(t)
	s.db.SetMaxOpenConns(1) // the limit is a connection's
	var pages int
	must(t, s.db.QueryRow("PRAGMA page_count").Scan(&pages))
	mustExec(t, s, "PRAGMA max_page_count = 20")
	vm := newVM("big")
	vm.Runtime.LastError = strings.Repeat("x", 1<<20)
	_, err := s.ReserveVM(t.Context(), vm, "10.77.0.0/16")
	wantError(t, err, banger.NoSpace, "cannot create VM big")
	mustReserve(t, s, "small") // the failed one left nothing behind
}

func TestLockedDatabaseIsBusy(t *testing.T) {
	path := newPath(t)
	s := mustOpen(t, path)
	s.db.SetMaxOpenConns(1)
	mustExec(t, s, "PRAGMA busy_timeout = 1")
	other := raw(t, path)
	_, err := other.Exec("BEGIN IMMEDIATE")
	must(t, err)
	err = s.DeleteVM(t.Context(), "x")
	wantError(t, err, banger.Busy, "cannot delete VM x")
	_, err = s.VMs(t.Context()) // readers do not wait
	must(t, err)
}

func TestCancelledWriteIsCancelledAndLeavesTheStoreUsable(t *testing.T) {
	s := mustOpenWithImage(t)
	ctx, cancel := context.WithCancel(t.Context())
	s.writer <- struct{}{}
	done := make(chan error)
	go func() { done <- s.DeleteVM(ctx, "x") }()
	cancel()
	wantError(t, <-done, banger.Cancelled)
	<-s.writer
	err := s.write(t.Context(), func(querier) error { return context.Canceled })
	if err == nil {
		t.Fatal("the failure was lost")
	}
	mustReserve(t, s, "devbox")
}

// Another build's daemon may have upgraded the file.
func TestStatementsThatAreKeptFollowAChangeOfTheTables(t *testing.T) {
	path := newPath(t)
	s := mustOpen(t, path)
	must(t, s.UpsertImage(t.Context(), banger.Image{ID: "i1", Name: "debian", RootfsPath: "/r"}))
	mustReserve(t, s, "devbox")
	look := func() banger.VM {
		t.Helper()
		vm, err := s.VMByName(t.Context(), "devbox")
		must(t, err)
		return vm
	}
	look()
	_, err := raw(t, path).Exec(`ALTER TABLE vms ADD COLUMN later TEXT; ALTER TABLE vms RENAME COLUMN state TO was;
		ALTER TABLE vms ADD COLUMN state TEXT; UPDATE vms SET state = 'stopped', was = 'error'`)
	must(t, err)
	if got := look().State; got != banger.StateStopped {
		t.Errorf("read %q from the tables as they were", got)
	}
	must(t, s.SetState(t.Context(), look().ID, banger.StateRunning, banger.Runtime{}))
	if got := look().State; got != banger.StateRunning {
		t.Errorf("wrote to the tables as they were: %q", got)
	}
}
