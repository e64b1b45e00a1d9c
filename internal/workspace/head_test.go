package workspace

import (
	"context"
	"os"
	"strings"
	"testing"

	"banger"
)

// The files that say at once where a repository is agree with git, or say nothing.
func TestHeadIsGits(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*rig)
		plain  bool // to be known without git
	}{
		"nothing":           {func(*rig) {}, true},
		"packed":            {func(r *rig) { r.host("pack-refs", "--all") }, true},
		"detached":          {func(r *rig) { r.host("checkout", "-q", "--detach") }, true},
		"another branch":    {func(r *rig) { r.host("switch", "-q", "-c", "a/b") }, true},
		"a commit":          {func(r *rig) { r.commit("three") }, false},
		"a commit, packed":  {func(r *rig) { r.host("pack-refs", "--all"); r.commit("three") }, false},
		"packed afterwards": {func(r *rig) { r.commit("three"); r.host("pack-refs", "--all") }, false},
		"an older one":      {func(r *rig) { r.host("checkout", "-q", "HEAD~1") }, false},
		"no commit":         {func(r *rig) { r.host("switch", "-q", "--orphan", "none") }, false},
		"a worktree": {func(r *rig) {
			r.host("worktree", "add", "-q", "--detach", "../tree")
			r.repo += "/../tree"
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := furnished(t)
			at := strings.TrimSpace(r.host("rev-parse", "HEAD"))
			r.write("new", "new\n")
			c.change(r)
			want := ""
			if gitMayFail(r, "rev-parse", "-q", "--verify", "HEAD") == nil {
				want = strings.TrimSpace(r.host("rev-parse", "HEAD"))
			}
			w := banger.Workspace{SourcePath: r.repo, HeadCommit: at}
			if got, err := Head(context.Background(), w); got != want || err != nil {
				t.Errorf("%q, %v; want %q", got, err, want)
			}
			t.Setenv("PATH", "/nowhere")
			if got, _ := Head(context.Background(), w); c.plain != (got == at) {
				t.Errorf("without git: %q", got)
			}
		})
	}
}

func TestARepositoryThatIsGoneHasNoHead(t *testing.T) {
	w := banger.Workspace{SourcePath: t.TempDir() + "/gone", HeadCommit: strings.Repeat("1", 40)}
	if head, err := Head(context.Background(), w); err == nil || head != "" {
		t.Errorf("%q, %v", head, err)
	}
}

func TestARepositoryIsAskedForAsAtFirst(t *testing.T) {
	for name, o := range map[string]Options{
		"plainly":         {},
		"untracked files": {Untracked: true},
		"two commits":     {Depth: 2},
		"whole":           {Mode: Full},
		"another branch":  {Branch: "mine", From: "main~1"},
	} {
		t.Run(name, func(t *testing.T) {
			r := furnished(t)
			r.mustDeliver(o)
			branch, history := r.guest("branch", "--show-current"), r.guest("rev-list", "--count", "HEAD")
			again, want := Again(r.record), o
			want.Path, want.again = r.repo, true
			if want.Mode == "" {
				want.Mode = Overlay
			}
			if again != want {
				t.Errorf("%+v, want %+v", again, want)
			}
			r.write("left", "untracked\n")
			r.mustDeliver(again)
			if _, err := os.Stat(r.path + "/left"); (err == nil) != o.Untracked {
				t.Errorf("the untracked file: %v", err)
			}
			if b, h := r.guest("branch", "--show-current"), r.guest("rev-list", "--count", "HEAD"); b != branch || h != history {
				t.Errorf("the guest is on %s with %s commits, was on %s with %s", b, h, branch, history)
			}
		})
	}
}
