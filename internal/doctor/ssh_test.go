package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/paths"
	"banger/internal/sshconfig"
)

func TestShortcutForSSHIsCompared(t *testing.T) {
	e := &exam{dirs: paths.Dirs{State: t.TempDir()}, host: host{home: t.TempDir()}}
	expect := func(want Verdict, says string) {
		t.Helper()
		e.rows = nil
		e.sshShortcut(t.Context())
		if r := e.rows[0]; r.Verdict != want || !strings.Contains(r.Detail, says) || (want == Warn) != (len(r.Remedies) == 1) {
			t.Errorf("got %+v, want %s: %s", r, want, says)
		}
	}
	expect(Pass, "not installed")
	file := sshconfig.Of(e.host.home, e.dirs.SSHConfig())
	if err := file.Install(); err != nil {
		t.Fatal(err)
	}
	expect(Warn, "another banger")
	exe, _ := os.Executable()
	block := sshconfig.Place{Exe: exe, Env: paths.Env(), KnownHosts: e.dirs.KnownHosts(), Identity: e.dirs.UserKey()}.Block()
	if err := os.MkdirAll(filepath.Dir(file.Include), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file.Include, []byte(block), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(Pass, "reaches")
	e.config.SSHKeyPath = "/other/key"
	expect(Warn, "other settings")
	e.config.SSHKeyPath = ""
	text, _ := os.ReadFile(file.Path)
	if err := os.WriteFile(file.Path, append([]byte("Host *\n"), text...), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(Warn, "does not begin")
}
