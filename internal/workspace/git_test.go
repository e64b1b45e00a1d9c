package workspace

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A repository's own configuration is its owner's, but nothing that it names
// may run by the way, and no variable may lead git elsewhere.
func TestGitOnTheHostIsScrubbed(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	t.Setenv("GIT_DIR", elsewhere)
	t.Setenv("GIT_PAGER", "touch "+elsewhere+"/pager")
	g := git{dir: dir}
	ctx := context.Background()
	for _, args := range [][]string{
		{"init", "-q"},
		{"config", "core.fsmonitor", "touch " + elsewhere + "/monitor"},
		{"config", "core.hooksPath", dir + "/hooks"},
	} {
		if _, err := g.run(ctx, args...); err != nil {
			t.Fatal(err)
		}
	}
	hook := "#!/bin/sh\ntouch " + elsewhere + "/hook\n"
	if err := os.MkdirAll(dir+"/hooks", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/hooks/post-index-change", []byte(hook), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"add", "-A"}, {"status"}, {"log"}} {
		_, _ = g.run(ctx, args...)
	}
	if left, _ := filepath.Glob(elsewhere + "/*"); len(left) > 0 {
		t.Errorf("git ran or used %s", strings.Join(left, " "))
	}
}
