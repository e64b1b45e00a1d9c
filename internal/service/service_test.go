package service

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger"
)

// systemd is one that does as it is told and notes it.
type systemd struct {
	told []string
	fail string // the command that fails
}

func (s *systemd) run(_ context.Context, name string, args ...string) (string, error) {
	line := name + " " + strings.Join(args, " ")
	s.told = append(s.told, line)
	switch {
	case s.fail != "" && strings.Contains(line, s.fail):
		return "Failed to connect to bus: No medium found\n", errors.New("exit status 1")
	case strings.Contains(line, "is-active"):
		return "active\n", nil
	case strings.Contains(line, "MainPID"):
		return "42\n", nil
	}
	return "", nil
}

// did are the commands that change something.
func (s *systemd) did() (all []string) {
	for _, line := range s.told {
		if !strings.Contains(line, " show ") && !strings.Contains(line, "is-active") {
			all = append(all, line)
		}
	}
	s.told = nil
	return all
}

func newManager(t *testing.T) (Manager, *systemd) {
	t.Helper()
	s := &systemd{}
	dir := t.TempDir()
	return Manager{Path: filepath.Join(dir, "systemd", "user", Name), Booted: dir, Command: s.run}, s
}

func unit(t *testing.T, exe string, env ...string) string {
	t.Helper()
	text, err := Unit(exe, env)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	return string(text)
}

func TestInstallIsIdempotentAndUninstallTakesAllBack(t *testing.T) {
	m, s := newManager(t)
	want := []string{"systemctl --user daemon-reload", "systemctl --user enable banger.service", "systemctl --user restart banger.service"}
	for range 2 {
		must(t, m.Install(t.Context(), unit(t, "/usr/bin/banger")))
		if got := s.did(); !slices.Equal(got, want) {
			t.Errorf("did %q, want %q", got, want)
		}
	}
	if st, err := m.Status(t.Context()); err != nil || st.Author != Ours || st.State != "active" || st.PID != 42 {
		t.Errorf("status %+v, %v", st, err)
	}
	must(t, m.Install(t.Context(), unit(t, "/opt/banger")))
	if !strings.Contains(read(t, m.Path), `"/opt/banger" daemon run`) {
		t.Error("the unit runs the old executable")
	}
	s.did()
	was, err := m.Uninstall(t.Context())
	if got := s.did(); err != nil || !was || !slices.Equal(got, []string{"systemctl --user disable --now banger.service", "systemctl --user daemon-reload", "systemctl --user reset-failed banger.service"}) {
		t.Errorf("uninstall: %v, %v, did %q", was, err, got)
	}
	if author, err := Written(m.Path); err != nil || author != Nobody {
		t.Errorf("the unit is %s's still, %v", author, err)
	}
	if was, err := m.Uninstall(t.Context()); err != nil || was {
		t.Errorf("again: %v, %v", was, err)
	}
}

func TestWhatSomebodyWroteIsLeftAlone(t *testing.T) {
	for name, text := range map[string]string{
		"their own": "[Service]\nExecStart=/bin/true\n",
		"edited":    unit(t, "/usr/bin/banger") + "Environment=MINE=1\n",
	} {
		m, s := newManager(t)
		must(t, os.MkdirAll(filepath.Dir(m.Path), 0o700))
		must(t, os.WriteFile(m.Path, []byte(text), 0o600))
		err := m.Install(t.Context(), unit(t, "/usr/bin/banger"))
		_, err2 := m.Uninstall(t.Context())
		for _, err := range []error{err, err2} {
			if banger.CodeOf(err) != banger.Conflict || len(banger.HintsOf(err)) == 0 {
				t.Errorf("%s: %v", name, err)
			}
		}
		if got := s.did(); len(got) > 0 || read(t, m.Path) != text {
			t.Errorf("%s: did %q", name, got)
		}
	}
}

func TestWithoutSystemdNothingIsWritten(t *testing.T) {
	for name, spoil := range map[string]func(*Manager, *systemd){
		"no systemd":     func(m *Manager, _ *systemd) { m.Booted += "/none" },
		"no user's":      func(_ *Manager, s *systemd) { s.fail = "show" },
		"no user's (su)": func(_ *Manager, s *systemd) { s.fail = "--user" },
	} {
		m, s := newManager(t)
		spoil(&m, s)
		err := m.Install(t.Context(), unit(t, "/usr/bin/banger"))
		if banger.CodeOf(err) != banger.Unavailable || len(banger.HintsOf(err)) == 0 {
			t.Errorf("%s: %v", name, err)
		}
		if author, _ := Written(m.Path); author != Nobody || len(s.did()) > 1 {
			t.Errorf("%s: something was done", name)
		}
		if err := m.Restart(t.Context()); banger.CodeOf(err) != banger.Unavailable {
			t.Errorf("%s: restart: %v", name, err)
		}
		if st, err := m.Status(t.Context()); err != nil || st.State != "unknown" {
			t.Errorf("%s: %+v, %v", name, st, err)
		}
	}
}

func TestRestartOfWhatIsNotInstalledSaysHow(t *testing.T) {
	m, s := newManager(t)
	err := m.Restart(t.Context())
	if banger.CodeOf(err) != banger.NotFound || banger.HintsOf(err)[0] != "banger system install" || len(s.did()) > 0 {
		t.Errorf("%v", err)
	}
}

// A unit can be removed where systemd does not run any more.
func TestUninstallWithoutSystemd(t *testing.T) {
	m, s := newManager(t)
	must(t, m.Install(t.Context(), unit(t, "/usr/bin/banger")))
	s.did()
	m.Booted += "/none"
	if was, err := m.Uninstall(t.Context()); err != nil || !was || len(s.did()) > 0 {
		t.Errorf("%v, %v", was, err)
	}
}

func TestFailureOfSystemdNamesTheJournal(t *testing.T) {
	m, s := newManager(t)
	s.fail = "restart"
	err := m.Install(t.Context(), unit(t, "/usr/bin/banger"))
	if err == nil || !strings.Contains(err.Error(), "No medium found") || !strings.Contains(banger.HintsOf(err)[0], "journalctl") {
		t.Errorf("%v, %q", err, banger.HintsOf(err))
	}
}

func TestUnitPassesOnWhereThingsAre(t *testing.T) {
	text := unit(t, `/home/me/my "b" 100%/banger`, "HOME=/home/me", "XDG_STATE_HOME=/old", "XDG_STATE_HOME=/a b%c", "PATH=/bin", "SECRET=x", "XDG_CACHE_HOME=")
	for _, line := range []string{
		`ExecStart="/home/me/my \"b\" 100%%/banger" daemon run`, `Environment="XDG_STATE_HOME=/a b%%c"`, `Environment="PATH=/bin"`,
		"KillMode=process", "NoNewPrivileges=yes",
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("the unit lacks %s:\n%s", line, text)
		}
	}
	for _, word := range []string{"SECRET", "XDG_CACHE_HOME", "/old"} {
		if strings.Contains(text, word) {
			t.Errorf("the unit has %s", word)
		}
	}
	if _, err := Unit("/tmp/a\nExecStart=/bin/evil", nil); banger.CodeOf(err) != banger.Conflict {
		t.Errorf("a line break in the path: %v", err)
	}
}

// systemd itself has something to say of the unit, where its tools are there.
func TestSystemdAcceptsTheUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip(err)
	}
	path := filepath.Join(t.TempDir(), Name)
	verify := func(text string) string {
		must(t, os.WriteFile(path, []byte(text), 0o600))
		cmd := exec.Command(analyze, "--user", "--man=no", "verify", path)
		cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+t.TempDir())
		said, _ := cmd.CombinedOutput()
		return string(said)
	}
	text := unit(t, "/bin/true", "PATH=/bin:/usr/bin", `XDG_STATE_HOME=/a "b" %c`)
	if said := verify(text); strings.Contains(said, Name) {
		t.Errorf("systemd says:\n%s", said)
	}
	if said := verify(text + "[Service]\nKillMood=process\n"); !strings.Contains(said, "KillMood") {
		t.Errorf("systemd finds nothing wrong with a wrong unit: %s", said)
	}
}

func TestInside(t *testing.T) {
	for group, want := range map[string]bool{
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/banger.service\n":               true,
		"12:pids:/x\n0::/user.slice/user@1000.service/app.slice/banger.service\n":                   true,
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/banger-vm-0123456789ab.scope\n": false,
		"0::/user.slice/user-1000.slice/session-2.scope\n":                                          false,
	} {
		if inside(group) != want {
			t.Errorf("%q: inside is %v", group, !want)
		}
	}
}

func TestScopeNamesItsProcesses(t *testing.T) {
	m, s := newManager(t)
	must(t, m.Scope(t.Context(), "banger-vm-1", "banger VM 1", []int{7, 8}))
	want := `StartTransientUnit ssa(sv)a(sa(sv)) banger-vm-1.scope fail 2 Description s banger VM 1 PIDs au 2 7 8 0`
	if got := s.did(); len(got) != 1 || !strings.HasSuffix(got[0], want) {
		t.Errorf("did %q, want … %q", got, want)
	}
	s.fail = "busctl"
	if err := m.Scope(t.Context(), "x", "", nil); err == nil {
		t.Error("a failure is none")
	}
}
