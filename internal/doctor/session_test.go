package doctor

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

func TestLingerRow(t *testing.T) {
	for name, tt := range map[string]struct {
		systemd, lingers, unit, kills, root bool
		verdict                             Verdict
		words                               string
	}{
		"no systemd":          {verdict: Pass, words: "systemd does not run"},
		"root":                {systemd: true, kills: true, root: true, verdict: Pass, words: "root"},
		"lingers":             {systemd: true, lingers: true, unit: true, kills: true, verdict: Pass, words: "lingers"},
		"unit without":        {systemd: true, unit: true, verdict: Warn, words: "loginctl enable-linger"},
		"sessions are ended":  {systemd: true, kills: true, verdict: Warn, words: "KillUserProcesses"},
		"sessions are spared": {systemd: true, verdict: Pass, words: "outlive"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newExam(t)
			e.host.uid = 4711 // which has no name
			if tt.root {
				e.host.uid = 0
			}
			e.host.kills = func(context.Context) bool { return tt.kills }
			for path, made := range map[string]bool{
				e.host.systemd: tt.systemd, filepath.Join(e.host.lingers, "4711"): tt.lingers, e.dirs.Unit(): tt.unit,
			} {
				if made {
					write(t, path, "")
				}
			}
			want(t, e.only(t, e.session), tt.verdict, tt.words)
		})
	}
}

func TestKnownBadFirecrackerIsNamed(t *testing.T) {
	for version, verdict := range map[string]Verdict{"1.16.0": Warn, "1.16.1": Pass} {
		e := newExam(t)
		e.config.FirecrackerBin = filepath.Join(t.TempDir(), "firecracker")
		write(t, e.config.FirecrackerBin, "#!/bin/sh\necho Firecracker v"+version+"\n")
		if err := os.Chmod(e.config.FirecrackerBin, 0o700); err != nil {
			t.Fatal(err)
		}
		want(t, e.only(t, e.firecracker), verdict, version)
	}
}

func TestKeysOthersMayReadWarn(t *testing.T) {
	e := newExam(t)
	write(t, filepath.Join(e.dirs.Keys(), "id"), "secret")
	write(t, filepath.Join(e.dirs.Keys(), "id.pub"), "public")
	if e.directories(t.Context()); e.rows[0].Verdict != Pass {
		t.Fatalf("%+v", e.rows)
	}
	for _, name := range []string{"id", "id.pub"} {
		if err := os.Chmod(filepath.Join(e.dirs.Keys(), name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	e.rows = nil
	want(t, e.only(t, e.directories), Warn, "chmod 600 "+filepath.Join(e.dirs.Keys(), "id"))
}
