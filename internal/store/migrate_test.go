package store

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"banger"
)

// Databases as the earlier tool left them, built step by step by hand.
var (
	atLevel1 = []string{
		`PRAGMA journal_mode = WAL`,
		`CREATE TABLE schema_migrations (id INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at TEXT NOT NULL)`,
		`CREATE TABLE images (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, managed INTEGER NOT NULL DEFAULT 0,
			artifact_dir TEXT, rootfs_path TEXT NOT NULL, work_seed_path TEXT, kernel_path TEXT NOT NULL, initrd_path TEXT,
			modules_dir TEXT, build_size TEXT, seeded_ssh_public_key_fingerprint TEXT, docker INTEGER NOT NULL DEFAULT 0,
			created_at TEXT NOT NULL, updated_at TEXT NOT NULL)`,
		`CREATE TABLE vms (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, image_id TEXT NOT NULL,
			guest_ip TEXT NOT NULL UNIQUE, state TEXT NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
			last_touched_at TEXT NOT NULL, spec_json TEXT NOT NULL, runtime_json TEXT NOT NULL,
			stats_json TEXT NOT NULL DEFAULT '{}', FOREIGN KEY(image_id) REFERENCES images(id) ON DELETE RESTRICT)`,
		`INSERT INTO schema_migrations VALUES (1, 'baseline', '2025-01-01T00:00:00Z')`,
		`INSERT INTO images VALUES ('i1', 'void', 1, '/a', '/a/rootfs.ext4', NULL, '/a/vmlinux', NULL, NULL, '8G', NULL, 1,
			'2025-01-01T10:00:00+02:00', '2025-01-01T08:00:00Z')`,
		`INSERT INTO vms VALUES ('v-late', 'late', 'i1', '172.16.0.2', 'running',
			'2025-03-01T00:30:00+02:00', '2025-03-01T00:30:00+02:00', '2025-03-01T01:00:00.5+02:00',
			'{"vcpu":3,"nat_enabled":true,"deep":{"a":[1,2.50]}}',
			'{"guest_ip":"172.16.0.99","tap_device":"tap0","started_at":"","pid":12345678901234567890}', '{}')`,
		`INSERT INTO vms VALUES ('v-early', 'early', 'i1', '172.16.0.3', 'hibernating',
			'2025-02-28T22:29:59Z', '2025-02-28T22:29:59Z', '', '', '{}', '')`,
	}
	toLevel2 = []string{
		`ALTER TABLE images DROP COLUMN docker`,
		`INSERT INTO schema_migrations VALUES (2, 'drop_images_docker', '2025-01-02T00:00:00Z')`,
	}
	toLevel3 = []string{
		`ALTER TABLE vms ADD COLUMN workspace_json TEXT DEFAULT '{}'`,
		`INSERT INTO schema_migrations VALUES (3, 'add_vm_workspace', '2025-01-03T00:00:00Z')`,
		`UPDATE vms SET workspace_json = '{"guest_path":"/root/repo","source_path":"/home/u/p","head_commit":"abc",
			"prepared_at":"2025-03-01T12:00:00+05:30","shallow":true}' WHERE id = 'v-late'`,
		`UPDATE vms SET workspace_json = NULL WHERE id = 'v-early'`,
	}
)

func levels() [][]string {
	level2 := append(append([]string{}, atLevel1...), toLevel2...)
	return [][]string{atLevel1, level2, append(append([]string{}, level2...), toLevel3...)}
}

func TestOldDatabasesUpgradeAndListWithoutLoss(t *testing.T) {
	for i, statements := range levels() {
		t.Run(fmt.Sprint("level ", i+1), func(t *testing.T) {
			path := newPath(t)
			build(t, path, statements...)
			for range 2 { // the second time nothing is left to do
				s := mustOpen(t, path)
				checkOldRows(t, s, i+1)
				must(t, s.Close())
			}
		})
	}
}

func checkOldRows(t *testing.T, s *Store, level int) {
	t.Helper()
	vms, err := s.VMs(t.Context())
	must(t, err)
	// By text "late" would come first: its day is later, its instant too, but
	// only by a second and in another offset.
	if names(vms) != "early late" {
		t.Fatalf("listed %q, want early before late", names(vms))
	}
	early, late := vms[0], vms[1]
	if early.State != "hibernating" || early.Spec.VCPU != banger.DefaultVCPU || early.Spec.DiskBytes != banger.DefaultDisk {
		t.Errorf("early was read as %+v", early)
	}
	if !early.Workspace.IsZero() || early.Stats != (banger.Stats{}) {
		t.Errorf("empty columns were read as %+v and %+v", early.Workspace, early.Stats)
	}
	if late.Spec.VCPU != 3 || late.Spec.MemoryMiB != banger.DefaultMemoryMiB || late.Spec.Layout != 0 {
		t.Errorf("late's spec was read as %+v", late.Spec)
	}
	if late.Runtime.GuestIP != "172.16.0.2" {
		t.Errorf("the address in runtime_json won: %s", late.Runtime.GuestIP)
	}
	if want := time.Date(2025, 2, 28, 23, 0, 0, 5e8, time.UTC); !late.LastTouchedAt.Equal(want) {
		t.Errorf("last touched %v, want %v", late.LastTouchedAt, want)
	}
	if level == 3 && (late.Workspace.HeadCommit != "abc" ||
		!late.Workspace.PreparedAt.Equal(time.Date(2025, 3, 1, 6, 30, 0, 0, time.UTC))) {
		t.Errorf("late's workspace was read as %+v", late.Workspace)
	}
	images, err := s.Images(t.Context())
	must(t, err)
	want := banger.Image{
		ID: "i1", Name: "void", Managed: true, ArtifactDir: "/a", RootfsPath: "/a/rootfs.ext4", KernelPath: "/a/vmlinux",
		BuildSize: "8G", CreatedAt: time.Date(2025, 1, 1, 8, 0, 0, 0, time.UTC), UpdatedAt: time.Date(2025, 1, 1, 8, 0, 0, 0, time.UTC),
	}
	if len(images) != 1 || images[0] != want {
		t.Errorf("images were read as %+v, want %+v", images, want)
	}
	if got := query(t, s, "SELECT group_concat(id || name) FROM schema_migrations"); got != "1baseline,2drop_images_docker,3add_vm_workspace" {
		t.Errorf("migrations are %s", got)
	}
}

func TestUpgradeKeepsWhatItDoesNotKnow(t *testing.T) {
	path := newPath(t)
	build(t, path, levels()[1]...)
	s := mustOpen(t, path)
	before := query(t, s, "SELECT spec_json || runtime_json FROM vms WHERE id = 'v-late'")
	if want := `{"vcpu":3,"nat_enabled":true,"deep":{"a":[1,2.50]}}` +
		`{"guest_ip":"172.16.0.99","tap_device":"tap0","started_at":"","pid":12345678901234567890}`; before != want {
		t.Errorf("the upgrade rewrote %s", before)
	}
}

func TestUpgradeKeepsRowsThatShareANameOrAddress(t *testing.T) {
	path := newPath(t)
	build(t, path,
		`CREATE TABLE schema_migrations (id INTEGER PRIMARY KEY, name TEXT, applied_at TEXT)`,
		`INSERT INTO schema_migrations VALUES (1, 'baseline', '')`,
		`CREATE TABLE images (id, name, managed, artifact_dir, rootfs_path, work_seed_path, kernel_path, initrd_path,
			modules_dir, build_size, seeded_ssh_public_key_fingerprint, docker, created_at, updated_at)`,
		`CREATE TABLE vms (id, name, image_id, guest_ip, state, created_at, updated_at, last_touched_at, spec_json, runtime_json, stats_json)`,
		`INSERT INTO vms (id, name, guest_ip) VALUES ('a', 'twin', '10.77.0.2'), ('b', 'twin', '10.77.0.2'), ('c', NULL, NULL)`,
	)
	s := mustOpen(t, path)
	vms, err := s.VMs(t.Context())
	must(t, err)
	if names(vms) != "twin twin " {
		t.Fatalf("listed %q", names(vms))
	}
	vms[1].State = banger.StateError
	must(t, s.UpsertVM(t.Context(), vms[1])) // it changes neither name nor address

	third := newVM("twin")
	_, err = s.ReserveVM(t.Context(), third, "10.77.0.0/16")
	wantError(t, err, banger.AlreadyExists, "twin")
	third.Name = "other"
	third, err = s.ReserveVM(t.Context(), third, "10.77.0.0/16")
	must(t, err)
	if third.GuestIP != "10.77.0.3" {
		t.Errorf("got %s, want the first free address 10.77.0.3", third.GuestIP)
	}
}

func TestNewDatabaseIsPrivateAndAtTheLatestLevel(t *testing.T) {
	path := newPath(t)
	s := mustOpen(t, path)
	mustExec(t, s, "CREATE TABLE something (x)") // so that the sidecars exist
	files, err := os.ReadDir(filepath.Dir(path))
	must(t, err)
	if len(files) != 3 {
		t.Errorf("want the file and two sidecars, found %v", files)
	}
	for _, f := range files {
		info, err := f.Info()
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", f.Name(), info.Mode())
		}
	}
	if got := query(t, s, "SELECT max(id) FROM schema_migrations"); got != fmt.Sprint(len(migrations)) {
		t.Errorf("level %s, want %d", got, len(migrations))
	}
}

func mustExec(t testing.TB, s *Store, q string) {
	t.Helper()
	_, err := s.db.Exec(q)
	must(t, err)
}

// refused are databases that are not ours to touch.
var refused = map[string]struct {
	statements []string
	status     Status
	says       string
}{
	"a newer banger's": {append(append([]string{}, levels()[2]...),
		`INSERT INTO schema_migrations VALUES (4, 'add_vm_colour', '')`), StatusNewer, `newer banger (migration 4 "add_vm_colour"`},
	"another name for a known step": {[]string{
		`CREATE TABLE schema_migrations (id INTEGER, name TEXT, applied_at TEXT)`,
		`INSERT INTO schema_migrations VALUES (1, 'initial', '')`}, StatusForeign, "another program"},
	"a hole in the steps": {[]string{
		`CREATE TABLE schema_migrations (id INTEGER, name TEXT, applied_at TEXT)`,
		`INSERT INTO schema_migrations VALUES (1, 'baseline', ''), (3, 'add_vm_workspace', '')`}, StatusForeign, "another program"},
	"steps of another form": {[]string{
		`CREATE TABLE schema_migrations (version TEXT)`}, StatusForeign, "another program"},
	"ids that are no numbers": {[]string{
		`CREATE TABLE schema_migrations (id TEXT, name TEXT)`,
		`INSERT INTO schema_migrations VALUES ('one', 'baseline')`}, StatusForeign, "another program"},
	"tables without steps": {[]string{
		`CREATE TABLE schema_migrations (id INTEGER, name TEXT, applied_at TEXT)`,
		`CREATE TABLE vms (id TEXT)`}, StatusForeign, "another program"},
	"no steps at all": {[]string{
		`CREATE TABLE bookmarks (url TEXT)`}, StatusForeign, "another program"},
	"tables that lack columns": {[]string{
		`CREATE TABLE schema_migrations (id INTEGER, name TEXT, applied_at TEXT)`,
		`INSERT INTO schema_migrations VALUES (1, 'baseline', '')`,
		`CREATE TABLE vms (id TEXT)`}, StatusUnreadable, "lacks"},
}

func TestForeignAndNewerDatabasesAreRefusedUntouched(t *testing.T) {
	for name, c := range refused {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			build(t, path, c.statements...)
			checkRefused(t, path, c.status, c.says)
		})
	}
}

// While its owner has it open, all of it may still be in the log.
func TestForeignAndNewerDatabasesAreRefusedUntouchedWhileOpenElsewhere(t *testing.T) {
	for name, c := range refused {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			db := raw(t, path)
			for _, statement := range append([]string{"PRAGMA journal_mode = WAL", "PRAGMA wal_autocheckpoint = 0"}, c.statements...) {
				_, err := db.Exec(statement)
				must(t, err)
			}
			checkRefused(t, path, c.status, c.says)
		})
	}
}

func TestFilesThatAreNoDatabaseAreRefusedUntouched(t *testing.T) {
	path := newPath(t)
	must(t, os.WriteFile(path, []byte("dear diary, this is no database, though it is as long as one may be\n"), 0o640))
	checkRefused(t, path, StatusUnreadable, "not an SQLite database")

	path = newPath(t)
	must(t, os.WriteFile(path, append([]byte(sqliteMagic), make([]byte, 8192)...), 0o640))
	checkRefused(t, path, StatusUnreadable, "not an SQLite database")

	path = newPath(t)
	must(t, os.Mkdir(path, 0o700))
	checkRefused(t, path, StatusUnreadable, "not a regular file")
}

func checkRefused(t *testing.T, path string, status Status, says string) {
	t.Helper()
	before := world(t, filepath.Dir(path))
	s, err := Open(t.Context(), path)
	if err == nil {
		s.Close()
		t.Fatal("it was opened")
	}
	code := banger.BadVersion
	if status == StatusUnreadable {
		code = banger.Unavailable
	}
	wantError(t, err, code, "cannot open the database "+path+": it ", says)
	if len(banger.HintsOf(err)) == 0 {
		t.Error("no hint")
	}
	i, err := Inspect(t.Context(), path)
	must(t, err)
	if i.Status != status || i.Detail == "" {
		t.Errorf("inspected as %s (%s), want %s", i.Status, i.Detail, status)
	}
	if after := world(t, filepath.Dir(path)); after != before {
		t.Errorf("before:\n%.2000s\nafter:\n%.2000s", before, after)
	}
}
