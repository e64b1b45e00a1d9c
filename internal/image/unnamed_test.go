package image

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAFileHasNoNameBeforeItIsWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pack")
	names := func() int {
		entries, err := os.ReadDir(filepath.Dir(path))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	for _, content := range []string{"first", "second"} { // in the place of another
		before := names()
		dropped, err := newUnnamed(path)
		if err != nil {
			t.Fatal(err)
		}
		u, err := newUnnamed(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := u.WriteString(content); err != nil {
			t.Fatal(err)
		}
		if u.name == "" && names() != before { // not every file system can
			t.Error("it has a name already")
		}
		if err := u.publish(); err != nil {
			t.Fatal(err)
		}
		u.drop()
		dropped.drop()
		if text, err := os.ReadFile(path); err != nil || string(text) != content || names() != 1 {
			t.Errorf("got %q, %v among %d", text, err, names())
		}
	}
}
