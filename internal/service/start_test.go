package service

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger"
)

func TestRunsIsOfTheSameDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), Name)
	written := unit(t, "/usr/bin/banger", "PATH=/bin", "XDG_STATE_HOME=/state")
	for name, c := range map[string]struct {
		text, exe string
		env       []string
		want      bool
	}{
		"it":                     {written, "/usr/bin/banger", []string{"PATH=/other", "XDG_STATE_HOME=/state"}, true},
		"edited":                 {written + "[Service]\nEnvironment=MINE=1\n", "/usr/bin/banger", []string{"XDG_STATE_HOME=/state"}, true},
		"another executable":     {written, "/opt/banger", []string{"XDG_STATE_HOME=/state"}, false},
		"another state":          {written, "/usr/bin/banger", []string{"XDG_STATE_HOME=/else"}, false},
		"the usual state":        {written, "/usr/bin/banger", nil, false},
		"another cache":          {written, "/usr/bin/banger", []string{"XDG_STATE_HOME=/state", "XDG_CACHE_HOME=/cache"}, false},
		"one that does not tell": {strings.Replace(written, "=notify", "=exec", 1), "/usr/bin/banger", []string{"XDG_STATE_HOME=/state"}, false},
	} {
		must(t, os.WriteFile(path, []byte(c.text), 0o600))
		if got := Runs(path, c.exe, c.env); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if Runs(path+".none", "/usr/bin/banger", nil) {
		t.Error("a unit that is not there runs it")
	}
}

func TestStartOfTheServiceOrWhyNot(t *testing.T) {
	m, s := newManager(t)
	must(t, m.Start(t.Context()))
	if got := s.did(); !slices.Equal(got, []string{"systemctl --user is-enabled banger.service", "systemctl --user restart banger.service"}) {
		t.Errorf("did %q", got)
	}
	for failing, hint := range map[string]string{"show": "loginctl enable-linger", "is-enabled": "systemctl --user enable banger.service", "restart": "journalctl"} {
		s.fail, s.told = failing, nil
		err := m.Start(t.Context())
		if banger.CodeOf(err) != banger.Unavailable || len(banger.HintsOf(err)) != 1 || !strings.Contains(banger.HintsOf(err)[0], hint) {
			t.Errorf("%s: %v, %q", failing, err, banger.HintsOf(err))
		}
		if failing != "restart" && slices.Contains(s.told, "systemctl --user restart banger.service") {
			t.Errorf("%s: it was restarted", failing)
		}
	}
}

func TestSystemdIsToldOnceTheDaemonIsUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	heard, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	defer heard.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	up := Starting()
	if os.Getenv("NOTIFY_SOCKET") != "" {
		t.Error("its children hear of systemd")
	}
	up()
	said := make([]byte, 100)
	n, err := heard.Read(said)
	if err != nil || string(said[:n]) != "READY=1" {
		t.Errorf("it said %q, %v", said[:n], err)
	}
	Starting()() // nobody waits for this one
}
