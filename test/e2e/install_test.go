package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMakeInstallAndUninstall(t *testing.T) {
	dest := t.TempDir()
	command(t, "make", "-C", "../..", "install", "DESTDIR="+dest, "PREFIX=/usr")
	bin := filepath.Join(dest, "usr/bin/banger")
	if said := command(t, bin, "--version"); !strings.HasPrefix(said, "banger ") {
		t.Errorf("the installed one says %q", said)
	}
	for _, file := range []string{"bash-completion/completions/banger", "zsh/site-functions/_banger", "fish/vendor_completions.d/banger.fish"} {
		text, err := os.ReadFile(filepath.Join(dest, "usr/share", file))
		if err != nil || !strings.Contains(string(text), "__complete") {
			t.Errorf("%s: %v, %.60q", file, err, text)
		}
	}
	command(t, "make", "-C", "../..", "uninstall", "DESTDIR="+dest, "PREFIX=/usr")
	_ = filepath.WalkDir(dest, func(path string, d fs.DirEntry, _ error) error {
		if !d.IsDir() {
			t.Errorf("%s is left", path)
		}
		return nil
	})
}
