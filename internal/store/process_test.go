package store

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"banger"
)

// parts are what the test binary does when it stands in for another process.
var parts = map[string]func(ctx context.Context, path string) error{
	"reserve": reserveMany,
	"migrate": dieInMigration,
	"open":    openOnce,
	"churn":   churn,
	"look":    lookLong,
}

// start runs a part in a process of its own. Closing its stdin lets it go on.
func start(t *testing.T, part, path string) (cmd *exec.Cmd, stdin io.Closer, stdout *bufio.Scanner) {
	t.Helper()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "STORE_TEST_PART="+part, "STORE_TEST_PATH="+path)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd, in, bufio.NewScanner(out)
}

// waitForStart blocks until the test says go.
func waitForStart() { _, _ = io.Copy(io.Discard, os.Stdin) }

const perProcess = 60

// waits is how long the store waits for another process: busy_timeout of pragmas.
const waits = 5 * time.Second

// insist does again what another process did not let be done. Nobody queues for the
// lock of a database, so that on a slow disk the other may have it for as long as one
// waits. One who is turned away sooner did not wait.
func insist(do func() error) error {
	for deadline := time.Now().Add(5 * time.Minute); ; {
		begun := time.Now()
		err := do()
		if banger.CodeOf(err) != banger.Busy || begun.After(deadline) {
			return err
		}
		if waited := time.Since(begun); waited < waits {
			return fmt.Errorf("it waited for %v: %w", waited, err)
		}
	}
}

// reserveMany says each name once it was acknowledged.
func reserveMany(ctx context.Context, path string) error {
	waitForStart()
	var s *Store
	err := insist(func() (err error) { s, err = Open(ctx, path); return err })
	if err != nil {
		return err
	}
	err = insist(func() error { return s.UpsertImage(ctx, banger.Image{ID: "i1", Name: "debian", RootfsPath: "/r"}) })
	if err != nil {
		return err
	}
	for i := range perProcess {
		name := fmt.Sprintf("vm-%d-%d", os.Getpid(), i)
		err := insist(func() error { _, err := s.ReserveVM(ctx, newVM(name), "10.77.0.0/16"); return err })
		if err != nil {
			return err
		}
		fmt.Println(name)
	}
	return s.Close()
}

// churn rewrites two tables of many pages together, so that the log is
// begun anew every few commits, until its stdin is closed.
func churn(ctx context.Context, path string) error {
	// The driver sorts pragmas, and the last one of a name holds.
	db := connect(path, append(pragmas[:len(pragmas):len(pragmas)], "wal_autocheckpoint(250)", "synchronous(OFF)"))
	ended := make(chan struct{})
	go func() { waitForStart(); close(ended) }()
	fmt.Println("ready")
	for n := 1; ; n++ {
		select {
		case <-ended:
			return db.Close()
		default:
		}
		err := inTx(ctx, db, func(tx *sql.Tx) error {
			_, err1 := tx.ExecContext(ctx, "UPDATE vms SET runtime_json = json_object('boot_count', ?, 'last_error', printf('%.9000c', 'x'))", n)
			_, err2 := tx.ExecContext(ctx, "UPDATE images SET build_size = ?", fmt.Sprint(n))
			return errors.Join(err1, err2)
		})
		if err != nil {
			return err
		}
	}
}

func openOnce(ctx context.Context, path string) error {
	waitForStart()
	s, err := Open(ctx, path)
	if err != nil {
		return err
	}
	return s.Close()
}

// dieInMigration stands still with a migration done and not committed.
func dieInMigration(ctx context.Context, path string) error {
	db := connect(path, pragmas)
	return inTx(ctx, db, func(tx *sql.Tx) error {
		if err := step(ctx, tx); err != nil {
			return err
		}
		fmt.Println("done")
		waitForStart()
		return errors.New("it should have been killed")
	})
}

func TestTwoProcessesOpenAndWriteAtOnce(t *testing.T) {
	path := newPath(t)
	first, go1, out1 := start(t, "reserve", path)
	second, go2, out2 := start(t, "reserve", path)
	go1.Close()
	go2.Close()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for out2.Scan() {
		}
	}()
	for out1.Scan() {
	}
	<-drained
	must(t, first.Wait())
	must(t, second.Wait())

	s := mustOpen(t, path)
	vms, err := s.VMs(t.Context())
	must(t, err)
	addresses := map[string]bool{}
	for _, vm := range vms {
		addresses[vm.GuestIP] = true
	}
	if len(vms) != 2*perProcess || len(addresses) != 2*perProcess {
		t.Errorf("%d rows with %d addresses, want %d of both", len(vms), len(addresses), 2*perProcess)
	}
}

func TestManyProcessesUpgradeOneDatabase(t *testing.T) {
	for round := range 5 {
		path := newPath(t)
		if round%2 == 0 {
			build(t, path, atLevel1...)
		}
		var all []*exec.Cmd
		var starts []io.Closer
		for range 4 {
			cmd, in, _ := start(t, "open", path)
			all, starts = append(all, cmd), append(starts, in)
		}
		for _, s := range starts {
			s.Close()
		}
		for _, cmd := range all {
			if err := cmd.Wait(); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
		if got := query(t, mustOpen(t, path), "SELECT count(*) FROM schema_migrations"); got != fmt.Sprint(len(migrations)) {
			t.Errorf("%s migrations are recorded", got)
		}
	}
}

func TestKillDuringWritesLosesNothingAcknowledged(t *testing.T) {
	path := newPath(t)
	cmd, in, out := start(t, "reserve", path)
	in.Close()
	var acknowledged []string
	for len(acknowledged) < perProcess/2 && out.Scan() {
		acknowledged = append(acknowledged, out.Text())
	}
	must(t, cmd.Process.Kill())
	for out.Scan() {
		acknowledged = append(acknowledged, out.Text())
	}
	if len(acknowledged) < perProcess/2 {
		t.Fatalf("it ended after %d rows by itself", len(acknowledged))
	}
	i, err := Inspect(t.Context(), path)
	must(t, err)
	if i.Status != StatusCurrent {
		t.Errorf("inspected as %s (%s)", i.Status, i.Detail)
	}
	s := mustOpen(t, path)
	for _, name := range acknowledged {
		if _, err := s.VMByName(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	mustReserve(t, s, "next")
}

func TestKillInTheMiddleOfAMigrationUndoesIt(t *testing.T) {
	path := newPath(t)
	build(t, path, atLevel1...)
	cmd, _, out := start(t, "migrate", path)
	if !out.Scan() || out.Text() != "done" {
		t.Fatal("the other process did not get to the middle")
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	i, err := Inspect(t.Context(), path)
	must(t, err)
	if i.Level != 1 {
		t.Errorf("level %d, want 1: what was not committed must be undone", i.Level)
	}
	s := mustOpen(t, path)
	checkOldRows(t, s, 1)
}

// A copy that a writer disturbed would be damaged or show half a commit.
func TestInspectSeesWholeCommitsWhileAnotherProcessWrites(t *testing.T) {
	path := newPath(t)
	s := mustOpen(t, path)
	must(t, s.UpsertImage(t.Context(), banger.Image{ID: "i1", Name: "debian", RootfsPath: "/r", BuildSize: "0"}))
	for i := range 20 {
		mustReserve(t, s, fmt.Sprint("vm-", i))
	}
	cmd, in, out := start(t, "churn", path)
	if !out.Scan() {
		t.Fatal("the writer did not begin")
	}
	for seen := 0; seen < 30; seen++ {
		i, err := Inspect(t.Context(), path)
		if banger.CodeOf(err) == banger.Busy {
			continue // also true
		}
		must(t, err)
		if i.Status != StatusCurrent || len(i.VMs) != 20 {
			t.Fatalf("inspected as %s (%s) with %d rows", i.Status, i.Detail, len(i.VMs))
		}
		for _, vm := range i.VMs {
			if got := fmt.Sprint(vm.Runtime.BootCount); got != i.Images[0].BuildSize {
				t.Fatalf("half a commit: VM at %s, image at %s", got, i.Images[0].BuildSize)
			}
		}
	}
	in.Close()
	must(t, cmd.Wait())
}

// lookLong has a private copy and stays.
func lookLong(ctx context.Context, path string) error {
	return withCopy(ctx, path, func(*sql.DB) error {
		fmt.Println("copied")
		waitForStart()
		return nil
	})
}

func TestACopyOfAKilledProcessGoesWithTheNextLook(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	path := filepath.Join(t.TempDir(), "state.db")
	s, err := Open(t.Context(), path)
	must(t, err)
	must(t, s.Close())
	copies := func() int {
		left, err := os.ReadDir(os.TempDir())
		must(t, err)
		return len(left)
	}
	cmd, _, said := start(t, "look", path)
	if !said.Scan() || copies() != 1 {
		t.Fatalf("there are %d copies", copies())
	}
	_, err = Inspect(t.Context(), path)
	must(t, err)
	if copies() != 1 {
		t.Errorf("of one that is in use there are %d copies", copies())
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	_, err = Inspect(t.Context(), path)
	must(t, err)
	if copies() > 0 {
		t.Errorf("%d copies are left", copies())
	}
}
