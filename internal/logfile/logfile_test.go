package logfile_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/logfile"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestLogIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	const max = 2000
	l, err := logfile.Open(path, max)
	must(t, err)
	defer l.Close()
	log := slog.New(slog.NewJSONHandler(l, nil))
	for n := range 100 {
		log.Info("line", "n", n)
	}
	files, err := filepath.Glob(path + "*")
	must(t, err)
	if len(files) != 2 {
		t.Fatalf("files: %q", files)
	}
	for _, f := range files {
		content, err := os.ReadFile(f)
		must(t, err)
		if len(content) > max || len(content) < max/2 {
			t.Errorf("%s has %d bytes", f, len(content))
		}
	}
	if newest, _ := os.ReadFile(path); !strings.Contains(string(newest), `"n":99`) {
		t.Errorf("the last line is not in the newest file: %s", newest)
	}
}

// Else it would grow for ever where nobody finds it, or in its predecessor.
func TestLogWhoseFileIsGoneBeginsAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := logfile.Open(path, 10)
	must(t, err)
	defer l.Close()
	_, _ = l.Write([]byte("first\n"))
	must(t, os.Remove(path))
	_, _ = l.Write([]byte("second\n"))
	if text, err := os.ReadFile(path); string(text) != "second\n" {
		t.Fatalf("%q, %v", text, err)
	}
}
