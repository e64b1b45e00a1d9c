package doctor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/config"
	"banger/internal/paths"
)

func newExam(t *testing.T) *exam {
	t.Helper()
	dir := t.TempDir()
	return &exam{
		dirs: paths.Dirs{State: dir + "/state", Cache: dir + "/cache", Config: dir + "/config/banger", Runtime: dir + "/run"},
		host: host{
			arch: "amd64", family: "debian", uid: os.Getuid(), home: dir, owner: ownerOf,
			fsType:  func(string) (int64, error) { return unix.EXT4_SUPER_MAGIC, nil },
			free:    func(string) (uint64, error) { return 100 << 30, nil },
			systemd: dir + "/systemd", lingers: dir + "/linger", kills: func(context.Context) bool { return false },
			dns: "127.0.0.1:1", withheld: func() []string { return nil },
		},
	}
}

// only runs one check and gives its one row.
func (e *exam) only(t *testing.T, check func(context.Context)) Row {
	t.Helper()
	check(t.Context())
	if len(e.rows) != 1 {
		t.Fatalf("got rows %+v, want one", e.rows)
	}
	return e.rows[0]
}

func want(t *testing.T, r Row, v Verdict, words string) {
	t.Helper()
	if r.Verdict != v || !strings.Contains(r.Detail+strings.Join(r.Remedies, " "), words) {
		t.Errorf("got %+v, want %s with %q", r, v, words)
	}
}

func TestNetworkFileSystemFails(t *testing.T) {
	e := newExam(t)
	e.host.fsType = func(string) (int64, error) { return unix.NFS_SUPER_MAGIC, nil }
	want(t, e.only(t, e.fileSystem), Fail, "XDG_STATE_HOME")
}

func TestRootInAnotherUsersHomeFails(t *testing.T) {
	e := newExam(t)
	e.host.uid, e.host.owner = 0, func(string) (int, error) { return 1000, nil }
	want(t, e.only(t, e.home), Fail, "belongs to uid 1000")
}

func TestWhatTheHostWithholdsWarns(t *testing.T) {
	for _, c := range []struct {
		withheld []string
		verdict  Verdict
		words    string
	}{
		{nil, Pass, "Landlock"},
		{[]string{"Landlock"}, Warn, "security/lsm"},
		{[]string{"user namespace", "network namespace"}, Warn, "network namespace"},
		{[]string{"user namespace"}, Warn, "user.max_user_namespaces"},
	} {
		e := newExam(t)
		e.host.withheld = func() []string { return c.withheld }
		want(t, e.only(t, e.confinement), c.verdict, c.words)
	}
}

func TestFullDiskFailsAndTightDiskWarns(t *testing.T) {
	for free, verdict := range map[uint64]Verdict{1 << 30: Fail, 5 << 30: Warn, 50 << 30: Pass} {
		e := newExam(t)
		e.host.free = func(string) (uint64, error) { return free, nil }
		want(t, e.only(t, e.space), verdict, "free at")
	}
}

func TestDirectoriesOthersMayReadWarn(t *testing.T) {
	e := newExam(t)
	if err := os.Mkdir(e.dirs.State, 0o755); err != nil {
		t.Fatal(err)
	}
	want(t, e.only(t, e.directories), Warn, "chmod 700 "+e.dirs.State)
}

func TestDirectoryOfAnotherUserFails(t *testing.T) {
	e := newExam(t)
	if err := os.Mkdir(e.dirs.State, 0o700); err != nil {
		t.Fatal(err)
	}
	e.host.owner = func(string) (int, error) { return e.host.uid + 1, nil }
	want(t, e.only(t, e.directories), Fail, "not to you")
}

func TestDatabaseRows(t *testing.T) {
	e := newExam(t)
	want(t, e.only(t, e.database), Pass, "nothing yet")
	e = newExam(t)
	if err := errors.Join(os.MkdirAll(e.dirs.State, 0o700), os.WriteFile(e.dirs.Database(), []byte(strings.Repeat("no database ", 200)), 0o600)); err != nil {
		t.Fatal(err)
	}
	want(t, e.only(t, e.database), Fail, "not an SQLite database")
}

func TestBadConfigurationFailsAndChecksGoOn(t *testing.T) {
	e := newExam(t)
	if err := errors.Join(os.MkdirAll(e.dirs.Config, 0o700), os.WriteFile(e.dirs.ConfigFile(), []byte("colour = 1\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	want(t, e.only(t, e.configuration), Fail, "colour")
	if e.config.DefaultKernel == "" {
		t.Error("the other checks have no defaults")
	}
}

func TestRemediesFollowTheDistribution(t *testing.T) {
	for release, want := range map[string]string{
		"ID=debian\n":                         "sudo apt-get install uidmap",
		"ID=pop\nID_LIKE=\"ubuntu debian\"\n": "sudo apt-get install uidmap",
		"ID=rocky\nID_LIKE=\"rhel fedora\"\n": "sudo dnf install shadow-utils",
		"ID=arch\n":                           "sudo pacman -S shadow",
		"ID=unheard-of\n":                     "install the package that holds newuidmap",
	} {
		if got := (host{family: family(release)}).install("newuidmap"); got != want {
			t.Errorf("%q: %q, want %q", release, got, want)
		}
	}
}

func TestDefaultsTellTheirOrigin(t *testing.T) {
	e := newExam(t)
	e.config, _, _ = config.Load(filepath.Join(t.TempDir(), "none"))
	want(t, e.only(t, e.defaults), Pass, "disk_size 8G (default)")
}

func TestCheckLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	dirs := paths.Dirs{State: dir + "/state", Cache: dir + "/cache", Config: dir + "/config/banger", Runtime: dir + "/run"}
	if rows := Check(t.Context(), dirs, Options{}); len(rows) < 10 {
		t.Errorf("only %d rows", len(rows))
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left %v, %v", entries, err)
	}
}
