package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// canaries are words of the user's that stand wherever a first boot could have
// brought one into its template, by where that is.
type canaries map[string]string

// plant makes a user of the world that has something everywhere, and whose daemon
// knows of it.
func (w *home) plant(t *testing.T) canaries {
	t.Helper()
	c := canaries{
		"the environment": "canary-of-the-environment", "a file that is synced": "canary-of-a-file",
		"a VM's name": "canary-of-a-name", "a command": "canary-of-a-command", "a variable": "canary-of-a-variable",
		"the home directory": w.Home,
	}
	w.Extra = append(w.Extra, "BANGER_CANARY="+c["the environment"])
	for name, content := range map[string]string{
		".config/banger/config.toml": "[[file_sync]]\nhost = \"~/.toolrc\"\nguest = \"~/.toolrc\"\n",
		".toolrc":                    c["a file that is synced"],
	} {
		path := filepath.Join(w.Home, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.must(t, "daemon", "stop", "--force")
	w.must(t, "ssh-config")
	keys, _ := filepath.Glob(filepath.Join(w.State(), "keys", "*.pub"))
	for _, path := range keys {
		text, err := os.ReadFile(path)
		if fields := strings.Fields(string(text)); err == nil && len(fields) > 1 {
			c["an SSH key"] = fields[1]
		}
	}
	if c["an SSH key"] == "" {
		t.Fatalf("the user has no SSH key among %q", keys)
	}
	return c
}

// mustBeAbsent searches every file of a directory for the canaries, and for a word
// that is there, so that a search that finds nothing is noticed.
func (c canaries) mustBeAbsent(t *testing.T, dir, there string) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	found := false
	for _, path := range files {
		content := mapped(t, path)
		for where, word := range c {
			if bytes.Contains(content, []byte(word)) {
				t.Errorf("%s has the word of %s", filepath.Base(path), where)
			}
		}
		found = found || bytes.Contains(content, []byte(there))
	}
	if !found {
		t.Errorf("none of %q has %q: this test looks in the wrong place", files, there)
	}
}

// mapped is the content of a file that may be larger than what one wants to hold.
func mapped(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		t.Fatal(path, "is empty", err)
	}
	content, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(content) })
	return content
}
