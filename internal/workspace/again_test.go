package workspace

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"banger"
)

// busy is furnished, brought in, and changed in the guest where the host will
// not.
func busy(t *testing.T) *rig {
	r := furnished(t)
	r.mustDeliver(Options{})
	r.inGuest("guest's own", "new\n")
	r.inGuest("run", "changed in the guest\n")
	r.guest("add", "run")
	return r
}

func TestSecondPrepareMovesWhatChanged(t *testing.T) {
	r := busy(t)
	r.write("big", strings.Repeat("0123456789abcdef", 1<<16))
	r.write("README", "host's\n")
	r.remove("dir/deep/file")
	r.host("add", "big")
	check := r.untouched()
	done := r.mustDeliver(Options{})
	check()
	r.sameFiles("guest's own", "run")
	if done.Removed != 1 || done.Files > 20 {
		t.Errorf("%d files sent, %d removed", done.Files, done.Removed)
	}
	if got, want := r.guest("rev-parse", baseRef+"^{tree}"), done.BaseTree+"\n"; got != want {
		t.Errorf("base %s, want %s", got, want)
	}
	if out := r.guest("status", "--short"); !strings.Contains(out, "M  run\n") || !strings.Contains(out, "?? \"guest's own\"\n") {
		t.Errorf("the guest's own changes are not as they were:\n%s", out)
	}

	r.write("README", "once more\n")
	done = r.mustDeliver(Options{})
	r.sameFiles("guest's own", "run")
	if done.Bytes > 20_000 {
		t.Errorf("%d bytes moved for a small file", done.Bytes)
	}
	if out := r.guest("fsck", "--no-dangling"); out != "" {
		t.Errorf("git fsck: %s", out)
	}
	if done = r.mustDeliver(Options{}); done.Files != 0 {
		t.Errorf("%d files moved where nothing changed", done.Files)
	}
}

func TestSecondPrepareFollowsTheHostsCommits(t *testing.T) {
	for name, change := range map[string]func(*rig){
		"commits after it": func(r *rig) { r.commit("three"); r.write("a", "4\n"); r.commit("four") },
		"an amended one":   func(r *rig) { r.host("add", "-A"); r.host("commit", "-q", "--amend", "-m", "other") },
		"a merge": func(r *rig) {
			r.commit("three")
			r.host("switch", "-q", "-c", "side", "HEAD~2")
			r.write("side", "s\n")
			r.commit("side")
			r.host("switch", "-q", "main")
			r.host("merge", "-q", "--no-edit", "side")
		},
		"another branch": func(r *rig) { r.host("switch", "-q", "-c", "other"); r.commit("three") },
		"a lost commit": func(r *rig) {
			r.commit("three")
			r.host("checkout", "-q", "--orphan", "fresh")
			r.host("commit", "-q", "-m", "fresh")
			r.host("branch", "-M", "main")
			r.host("reflog", "expire", "--expire=now", "--all")
			r.host("gc", "-q", "--prune=now")
		},
		"a directory for a file": func(r *rig) { r.remove("empty"); r.write("empty/now", "a directory\n"); r.commit("three") },
		"a file for a directory": func(r *rig) { r.remove("dir"); r.write("dir", "a file\n"); r.commit("three") },
	} {
		t.Run(name, func(t *testing.T) {
			r := busy(t)
			r.write("README", "third\n")
			change(r)
			r.mustDeliver(Options{})
			r.sameFiles("guest's own", "run")
			for _, args := range [][]string{{"rev-parse", "HEAD"}, {"branch", "--show-current"}} {
				if got, want := r.guest(args...), r.host(args...); got != want {
					t.Errorf("%v %q, want %q", args, got, want)
				}
			}
			want := "M  run\n?? \"guest's own\"\n"
			if name == "a lost commit" {
				want = " M run\n?? \"guest's own\"\n" // what it staged was relative to that
			}
			if out := r.guest("status", "--short"); out != want {
				t.Errorf("the guest's own changes are not as they were:\n%s", out)
			}
			if out := r.guest("fsck", "--no-dangling"); out != "" {
				t.Errorf("git fsck: %s", out)
			}
		})
	}
}

func TestConflictsWriteNothing(t *testing.T) {
	for name, c := range map[string]struct {
		guest, host func(*rig)
		says        string
	}{
		"changed on both sides":     {func(r *rig) { r.inGuest("README", "guest\n") }, func(r *rig) { r.write("README", "host\n") }, "README"},
		"removed here":              {func(r *rig) { r.inGuest("README", "guest\n") }, func(r *rig) { r.remove("README") }, "README"},
		"removed there":             {func(r *rig) { os.Remove(r.path + "/README") }, func(r *rig) { r.write("README", "host\n") }, "README"},
		"new on both sides":         {func(r *rig) { r.inGuest("new", "guest\n") }, func(r *rig) { r.write("new", "host\n"); r.host("add", "new") }, "new"},
		"new and ignored":           {func(r *rig) { r.inGuest(".git/info/exclude", "new\n"); r.inGuest("new", "g\n") }, func(r *rig) { r.write("new", "host\n"); r.host("add", "new") }, "new"},
		"a file where a dir comes":  {func(r *rig) { r.inGuest("new", "guest\n") }, func(r *rig) { r.write("new/file", "host\n"); r.host("add", "new") }, "new"},
		"a dir where a file comes":  {func(r *rig) { r.inGuest("new/file", "guest\n") }, func(r *rig) { r.write("new", "host\n"); r.host("add", "new") }, "new"},
		"commits in the guest":      {func(r *rig) { r.guest("commit", "-q", "--allow-empty", "-m", "mine") }, func(r *rig) { r.write("README", "host\n") }, "the guest is at"},
		"cut off there":             {func(r *rig) { r.inGuest("lines", "one\n") }, func(r *rig) { r.write("lines", "one\nTWO\nthree\nfour\n") }, "lines"},
		"emptied there":             {func(r *rig) { r.inGuest("lines", "") }, func(r *rig) { r.write("lines", "one\nTWO\nthree\nfour\n") }, "lines"},
		"another mode there":        {func(r *rig) { r.inGuest("lines", "same\n"); r.there("chmod +x lines") }, func(r *rig) { r.write("lines", "same\n") }, "lines"},
		"another mode here":         {func(r *rig) { r.inGuest("lines", "same\n") }, func(r *rig) { r.write("lines", "same\n"); r.chmod("lines", 0o755) }, "lines"},
		"a name in quotes":          {func(r *rig) { r.inGuest(`"README"`, "theirs\n") }, func(r *rig) { r.write(`"README"`, "second\n"); r.host("add", "-A") }, `\"README\"`},
		"a quote before a name":     {func(r *rig) { r.inGuest(`"odd`, "guest\n") }, func(r *rig) { r.write(`"odd`, "host\n"); r.host("add", "-A") }, `\"odd`},
		"an odd name on both sides": {func(r *rig) { r.inGuest("odd\nname", "g\n") }, func(r *rig) { r.write("odd\nname", "host\n"); r.host("add", "-A") }, `odd\nname`},
	} {
		t.Run(name, func(t *testing.T) {
			r := furnished(t)
			r.write("lines", "one\ntwo\nthree\n")
			r.host("add", "lines")
			r.mustDeliver(Options{})
			c.guest(r)
			c.host(r)
			r.write("run", "changed on the host alone\n")
			before := listing(t, r.path)
			ref := r.guest("for-each-ref") + r.guest("rev-parse", "HEAD")
			_, err := r.deliver(Options{})
			if banger.CodeOf(err) != banger.Conflict || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("%v; want a conflict about %s", err, c.says)
			}
			after := listing(t, r.path)
			if len(after) != len(before) || ref != r.guest("for-each-ref")+r.guest("rev-parse", "HEAD") {
				t.Errorf("a conflict wrote: %v, was %v", after, before)
			}
			for path, was := range before {
				if after[path] != was {
					t.Errorf("a conflict wrote %s", path)
				}
			}
			r.mustDeliver(Options{}, forced)
			r.sameFiles()
			if got, want := r.guest("rev-parse", "HEAD"), r.host("rev-parse", "HEAD"); got != want {
				t.Errorf("HEAD %s, want %s", got, want)
			}
		})
	}
}

func TestSameChangeOnBothSidesIsNoConflict(t *testing.T) {
	r := furnished(t)
	r.mustDeliver(Options{})
	for _, write := range []func(string, string){r.write, r.inGuest} {
		write(`"quoted\`, "same\n")
		write("README", "same\n")
		write("new", "same\n")
	}
	r.host("add", "-A")
	r.remove("run")
	if err := os.Remove(r.path + "/run"); err != nil {
		t.Fatal(err)
	}
	r.mustDeliver(Options{})
	r.sameFiles()
}

func TestForcedPrepareKeepsTheGuestsCommitsByName(t *testing.T) {
	r := furnished(t)
	r.mustDeliver(Options{})
	r.guest("commit", "-q", "--allow-empty", "-m", "mine")
	mine := r.guest("rev-parse", "HEAD")
	r.write("README", "host\n")
	r.mustDeliver(Options{}, forced)
	if got := r.guest("rev-parse", oldRef); got != mine {
		t.Errorf("%s is %s, want the guest's commit %s", oldRef, got, mine)
	}
}

// Files whose sizes and times are as the index has them, but which git on the host
// takes for changed: one that was written within a second of the index, and another
// one in its place.
func TestSecondPrepareSeesWhatSizeAndTimeDoNotShow(t *testing.T) {
	for name, index := range map[string]string{"written at once": "2020-02-02T02:02:02", "another one": "2020-02-02T02:02:09"} {
		t.Run(name, func(t *testing.T) {
			r := furnished(t)
			r.touch("README", "2020-02-02T02:02:02")
			r.host("update-index", "--refresh")
			r.mustDeliver(Options{})
			if name == "another one" {
				r.write("../other", "")
				if err := os.Rename(r.at("../other"), r.at("README")); err != nil {
					t.Fatal(err)
				}
			}
			r.write("README", "SECOND\n")
			r.touch("README", "2020-02-02T02:02:02")
			r.touch(".git/index", index)
			r.mustDeliver(Options{})
			r.sameFiles()
		})
	}
}

func (r *rig) touch(name, when string) {
	r.Helper()
	if err := touch(r.at(name), when); err != nil {
		r.Fatal(err)
	}
}

// nameless is a guest whose git names the first file alone.
type nameless struct{ standIn }

func (g nameless) Run(ctx context.Context, c Command) (int, error) {
	if slices.Contains(c.Argv, "--stdin-paths") {
		c.Argv = []string{"sh", "-c", `"$@" | head -n 1`, "sh", "git", "hash-object", "--no-filters", "--stdin-paths"}
	}
	return g.standIn.Run(ctx, c)
}

func TestAGuestThatDoesNotNameAllFilesIsRefused(t *testing.T) {
	r := furnished(t)
	r.mustDeliver(Options{})
	for _, write := range []func(string, string){r.write, r.inGuest} {
		write("README", "same\n")
		write("empty", "same\n")
	}
	_, err := r.deliver(Options{}, func(to *Target) { to.Guest = nameless{standIn{r.home}} })
	if banger.CodeOf(err) != banger.Conflict || !strings.Contains(err.Error(), "named 1 of 2 files") {
		t.Errorf("%v", err)
	}
}

// aside leaves commits on the guest's branch, and goes on somewhere else.
func aside(r *rig, checkout ...string) (mine string) {
	r.Helper()
	r.guest("commit", "-q", "--allow-empty", "-m", "mine")
	mine = r.guest("rev-parse", "HEAD")
	r.guest(append([]string{"checkout", "-q"}, checkout...)...)
	return mine
}

func TestCommitsOnABranchThatTheGuestHasLeftAreNotDropped(t *testing.T) {
	for name, checkout := range map[string][]string{
		"another branch": {"-b", "work", "HEAD~1"}, "no branch": {"--detach", "HEAD~1"}, "another branch with commits": {"-b", "work"},
	} {
		t.Run(name, func(t *testing.T) {
			r := furnished(t)
			r.mustDeliver(Options{})
			mine := aside(r, checkout...)
			if name == "another branch with commits" {
				r.guest("commit", "-q", "--allow-empty", "-m", "more")
			}
			head, at := r.guest("rev-parse", "HEAD"), r.guest("branch", "--show-current")
			same := func() {
				t.Helper()
				if r.guest("rev-parse", "main") != mine || r.guest("rev-parse", "HEAD") != head || r.guest("branch", "--show-current") != at {
					t.Errorf("the guest is on %s, its branches are\n%s", r.guest("branch", "--show-current"), r.guest("branch", "-v"))
				}
			}
			if done := r.mustDeliver(Options{}); !done.Nothing {
				t.Error("something was brought in where nothing changed")
			}
			same()
			r.write("README", "host\n")
			if _, err := r.deliver(Options{}); banger.CodeOf(err) != banger.Conflict || !strings.Contains(err.Error(), "the guest's branch main is at "+mine[:12]) {
				t.Errorf("%v; want a conflict about the branch", err)
			}
			same()
			r.mustDeliver(Options{}, forced)
			r.sameFiles()
			kept := r.guest("for-each-ref", "--format=%(objectname)", "refs/banger/before*")
			if !strings.Contains(kept, mine) || name == "another branch with commits" && !strings.Contains(kept, head) {
				t.Errorf("kept are\n%s, the guest's were %s and %s", kept, mine, head)
			}
			if r.guest("rev-parse", "main") != r.host("rev-parse", "main") || r.guest("branch", "--show-current") != "main\n" {
				t.Errorf("the guest is on %s", r.guest("branch", "-v"))
			}
		})
	}
}

func TestTheGuestStaysOnABranchOfItsOwnUntilTheHostGoesOn(t *testing.T) {
	r := furnished(t)
	r.mustDeliver(Options{})
	r.guest("checkout", "-q", "-b", "work")
	on := func(want string) {
		t.Helper()
		if got := r.guest("branch", "--show-current"); got != want+"\n" {
			t.Errorf("the guest is on %s, want %s", got, want)
		}
	}
	r.mustDeliver(Options{})
	on("work")
	r.write("README", "host\n")
	r.mustDeliver(Options{})
	r.sameFiles()
	on("work")
	r.host("switch", "-q", "-c", "other")
	r.mustDeliver(Options{})
	on("other")
	r.guest("checkout", "-q", "work")
	r.commit("three")
	r.mustDeliver(Options{})
	r.sameFiles()
	on("other")
}

// A branch that came with the whole history is behind without the guest's doing.
func TestABranchThatOnlyTheHostMovedIsNoConflict(t *testing.T) {
	for name, move := range map[string][]string{
		"on": {"commit", "-q", "--allow-empty", "-m", "three"}, "aside": {"commit", "-q", "--allow-empty", "--amend", "-m", "amended"},
	} {
		t.Run(name, func(t *testing.T) {
			r := furnished(t)
			r.host("switch", "-q", "-c", "other")
			r.write("other", "other\n")
			r.commit("other")
			r.host("switch", "-q", "main")
			r.mustDeliver(Options{Mode: Full})
			r.host("switch", "-q", "other")
			r.host(move...)
			r.mustDeliver(Options{Mode: Full})
			r.sameFiles()
			if got, want := r.guest("rev-parse", "other"), r.host("rev-parse", "other"); got != want {
				t.Errorf("the branch is at %s, want %s", got, want)
			}
		})
	}
}

// broken is a guest whose stream breaks off after some bytes.
type broken struct {
	standIn
	after int
}

func TestPrepareThatWasCutShortCanBeBegunAgain(t *testing.T) {
	for _, second := range []bool{false, true} {
		for after := 0; after < 60_000; after += 9_001 {
			r := furnished(t)
			r.record = banger.Workspace{}
			if second {
				r.mustDeliver(Options{})
				r.write("README", "changed\n")
				r.write("added", strings.Repeat("x", 9000))
				r.remove("run")
				r.host("add", "-A")
			}
			_, cut := r.deliver(Options{}, func(to *Target) { to.Guest = broken{standIn{r.home}, after} })
			if cut == nil && after == 0 {
				t.Fatal("a stream that breaks off is no error")
			}
			r.mustDeliver(Options{})
			r.sameFiles()
			if out := r.guest("fsck", "--no-dangling"); out != "" {
				t.Errorf("after %d bytes: git fsck: %s", after, out)
			}
		}
	}
}

func TestAnotherDirectoryIsNotWrittenOver(t *testing.T) {
	r := furnished(t)
	r.inGuest("theirs", "something else\n")
	if _, err := r.deliver(Options{}); banger.CodeOf(err) != banger.Conflict {
		t.Errorf("%v; want a conflict", err)
	}
	r.mustDeliver(Options{}, forced)
	r.sameFiles()
}

func TestGuestWithoutGitGetsFiles(t *testing.T) {
	r := furnished(t)
	done := r.mustDeliver(Options{}, func(to *Target) { to.Guest = gitless{standIn{r.home}} })
	if !done.NoGit {
		t.Error("it is not said")
	}
	r.sameFiles()
	if _, err := os.Stat(r.path + "/.git"); err == nil {
		t.Error("a git directory came all the same")
	}
}

type gitless struct{ standIn }

func (g gitless) Look(ctx context.Context, path string) (Found, error) {
	if strings.HasSuffix(path, "/bin/git") {
		return Nothing, nil
	}
	return g.standIn.Look(ctx, path)
}

// An export or a count that fails in a repository of the guest's own leaves
// nothing there that the next prepare would take for one of its own, cut short.
func TestAnExportThatFailsDoesNotHaveTheNextPrepareWipeTheGuestsWork(t *testing.T) {
	r := furnished(t)
	r.mustDeliver(Options{})
	r.there("rm -rf .git; git init -q; echo precious >work")
	if _, err := TakeOut(t.Context(), standIn{r.home}, r.scratch(), r.taking("")); banger.CodeOf(err) != banger.NotFound {
		t.Errorf("the export: %v", err)
	}
	if err := os.MkdirAll(r.path+"/.git/banger/export.1", 0o755); err != nil { // as earlier ones left it
		t.Fatal(err)
	}
	if _, err := r.deliver(Options{}); banger.CodeOf(err) != banger.Conflict {
		t.Errorf("the prepare: %v", err)
	}
	if got, err := os.ReadFile(r.path + "/work"); string(got) != "precious\n" {
		t.Fatalf("the guest's work is %q, %v", got, err)
	}
}

func TestAnExportLeavesNothingInARepositoryOfTheGuestsOwn(t *testing.T) {
	r := furnished(t)
	r.mustDeliver(Options{})
	r.there("rm -rf .git; git init -q")
	if _, err := TakeOut(t.Context(), standIn{r.home}, r.scratch(), r.taking("")); banger.CodeOf(err) != banger.NotFound {
		t.Errorf("the export: %v", err)
	}
	if _, err := os.Lstat(r.path + "/.git/banger"); !os.IsNotExist(err) {
		t.Errorf("a directory of banger's is there: %v", err)
	}
}
