package workspace

import (
	"context"
	"os"
	"strings"
	"testing"

	"banger"
)

func TestPlanRefusesWhatCannotGoIn(t *testing.T) {
	r := furnished(t)
	r.host("clone", "-q", "--bare", ".", "../bare")
	r.write("../plain/file", "x")
	for _, c := range []struct {
		o    Options
		says []string
	}{
		{Options{Path: r.at("../bare")}, []string{"bare repository"}},
		{Options{Path: r.at("../plain")}, []string{"not in a git repository", "git -C", "init", "banger vm cp"}},
		{Options{Path: r.at("nowhere")}, []string{"no such directory"}},
		{Options{Path: r.at("README")}, []string{"it is a file"}},
		{Options{Path: r.at(".git")}, []string{"inside a git directory"}},
		{Options{From: "HEAD"}, []string{"without a new branch", "--branch"}},
		{Options{Branch: "a..b"}, []string{"bad branch"}},
		{Options{Branch: "b", From: "nothing"}, []string{"no such commit"}},
		{Options{Branch: "b", From: "--help"}, []string{"no such commit"}},
		{Options{Mode: "half"}, []string{"bad mode"}},
		{Options{Mode: Full, Depth: 3}, []string{"depth"}},
		{Options{Depth: -1}, []string{"bad depth"}},
	} {
		if c.o.Path == "" {
			c.o.Path = r.repo
		}
		_, err := NewPlan(context.Background(), c.o)
		if err == nil {
			t.Errorf("%+v is taken", c.o)
			continue
		}
		text := err.Error() + strings.Join(banger.HintsOf(err), "\n")
		for _, want := range c.says {
			if !strings.Contains(text, want) {
				t.Errorf("%+v: %q says nothing of %q", c.o, text, want)
			}
		}
	}
}

func TestPlanSaysWhatGoesInAndWhatStays(t *testing.T) {
	r := furnished(t)
	r.write("README", "changed\n")
	r.remove("run")
	r.write("added", "a\n")
	r.host("add", "added")
	r.write("new", "n\n")
	r.write("inner/file", "i\n")
	run(t, r.at("inner"), os.Getenv("HOME"), "init", "-q")
	p := r.plan(Options{Path: r.at("dir/deep")})
	if p.Root != r.repo || p.Sub != "dir/deep" || p.Branch != "main" || p.Left != 1 {
		t.Errorf("%s, %s, %s, %d left", p.Root, p.Sub, p.Branch, p.Left)
	}
	got := map[string]byte{}
	for _, c := range p.Changes {
		got[c.Path] = c.Kind
	}
	if len(got) != 3 || got["README"] != 'M' || got["run"] != 'D' || got["added"] != 'A' {
		t.Errorf("changes %v", p.Changes)
	}
	if notes := strings.Join(p.Notes, "\n"); !strings.Contains(notes, "staged") || !strings.Contains(notes, "inner/") {
		t.Errorf("notes %q", notes)
	}
}

func TestOperationInProgressDoesNotTravel(t *testing.T) {
	r := furnished(t)
	r.host("switch", "-q", "-c", "side", "HEAD~1")
	r.write("README", "side\n")
	r.commit("side")
	if err := gitMayFail(r, "rebase", "-q", "main"); err == nil {
		t.Fatal("the rebase has no conflict")
	}
	p := r.plan(Options{})
	if notes := strings.Join(p.Notes, "\n"); !strings.Contains(notes, "rebase") {
		t.Errorf("notes %q", notes)
	}
	r.mustDeliver(Options{})
	r.sameFiles()
	if _, err := os.Stat(r.path + "/.git/rebase-merge"); err == nil {
		t.Error("the rebase travelled")
	}
}

func TestSubmodulesComeWithAllOfTheHistory(t *testing.T) {
	r := furnished(t)
	r.host("-c", "protocol.file.allow=always", "clone", "-q", ".", "../library")
	r.host("-c", "protocol.file.allow=always", "submodule", "add", "-q", "../library", "lib/it")
	r.host("config", "submodule.lib/it.url", "https://me:secret@example.com/library")
	r.commit("with a submodule")
	r.write("lib/it/README", "changed in the submodule\n")
	r.write("lib/it/new", "untracked in the submodule\n")
	_, err := NewPlan(context.Background(), Options{Path: r.repo})
	if err == nil || !strings.Contains(strings.Join(banger.HintsOf(err), ""), "--mode full") {
		t.Errorf("an overlay with submodules: %v", err)
	}
	check := r.untouched()
	r.mustDeliver(Options{Mode: Full, Untracked: true})
	check()
	r.sameFiles()
	if got, want := r.guest("-C", "lib/it", "log", "--oneline"), r.host("-C", "lib/it", "log", "--oneline"); got != want {
		t.Errorf("the submodule's history is\n%s, want\n%s", got, want)
	}
	if out := r.guest("submodule", "status"); strings.HasPrefix(out, "-") || strings.HasPrefix(out, "+") {
		t.Errorf("submodule status %q", out)
	}
	if out := r.guest("config", "--get-regexp", "url"); strings.Contains(out, "secret") {
		t.Errorf("credentials of a submodule travelled: %s", out)
	}

	r.write("lib/it/README", "changed again\n")
	r.host("-C", "lib/it", "-c", "user.name=x", "commit", "-qam", "in the submodule")
	r.mustDeliver(Options{Mode: Full, Untracked: true})
	r.sameFiles()
	if got, want := r.guest("-C", "lib/it", "rev-parse", "HEAD"), r.host("-C", "lib/it", "rev-parse", "HEAD"); got != want {
		t.Errorf("the submodule is at %s, want %s", got, want)
	}
}
