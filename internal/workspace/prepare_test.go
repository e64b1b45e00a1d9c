package workspace

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCleanRepositoryGoesInWhole(t *testing.T) {
	r := furnished(t)
	check := r.untouched()
	done := r.mustDeliver(Options{})
	check()
	r.sameFiles()
	r.sameStatus()
	if got, want := r.guest("rev-parse", "HEAD"), r.host("rev-parse", "HEAD"); got != want {
		t.Errorf("HEAD %s, want %s", got, want)
	}
	if got := r.guest("rev-list", "--count", "HEAD"); got != "1\n" {
		t.Errorf("%s commits, want the one", got)
	}
	if got := r.guest("branch", "--show-current"); got != "main\n" {
		t.Errorf("branch %q", got)
	}
	if got, want := r.guest("rev-parse", baseRef+"^{tree}"), done.BaseTree+"\n"; got != want {
		t.Errorf("base %s, want %s", got, want)
	}
	if done.BaseTree+"\n" != r.host("rev-parse", "HEAD^{tree}") || done.HeadCommit+"\n" != r.host("rev-parse", "HEAD") {
		t.Errorf("recorded %+v", done.Workspace)
	}
	if done.SourcePath != r.repo || done.GuestPath != r.path || done.Branch != "main" || done.Mode != Overlay {
		t.Errorf("recorded %+v", done.Workspace)
	}
}

// What git has to read again in the guest takes seconds under emulation: the
// index that comes along must fit the files that come along.
func TestGuestsGitNeedNotReadUnchangedFiles(t *testing.T) {
	r := furnished(t)
	old := "2020-02-02T02:02:02"
	for _, name := range []string{"README", "dir/deep/file", "run", "empty"} {
		if err := touch(r.at(name), old); err != nil {
			t.Fatal(err)
		}
	}
	r.host("update-index", "--refresh")
	r.mustDeliver(Options{})
	for _, index := range []string{"index", baseName} {
		if err := os.Chmod(r.path+"/README", 0); err != nil { // as root reads it all the same, look at the content too
			t.Fatal(err)
		}
		content := "SECOND\n"
		if err := os.WriteFile(r.path+"/README", []byte(content), 0o644); err != nil && os.Getuid() == 0 {
			t.Fatal(err)
		}
		if err := touch(r.path+"/README", old); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(r.path+"/README", 0o644); err != nil {
			t.Fatal(err)
		}
		t.Setenv("GIT_INDEX_FILE", "")
		if got := runWith(t, r.path, r.home, []string{"GIT_INDEX_FILE=" + r.path + "/.git/" + index}, "diff-files", "--name-only"); strings.Contains(got, "README") {
			t.Errorf("%s: git reads %s although size and time are as in the index", index, got)
		}
	}
}

func TestDirtyRepositoryGoesInAsItIs(t *testing.T) {
	r := furnished(t)
	r.write("README", "changed\n")
	r.remove("dir/deep/file")
	r.remove("link")
	r.chmod("run", 0o644)
	r.write("stays", "untracked\n")
	check := r.untouched()
	done := r.mustDeliver(Options{})
	check()
	r.sameFiles("stays")
	r.sameStatus()
	if strings.TrimSpace(done.BaseTree) == strings.TrimSpace(r.host("rev-parse", "HEAD^{tree}")) {
		t.Error("the tree as brought in is that of the commit")
	}
	if out := r.guest("diff", "--stat", baseRef); out != "" {
		t.Errorf("the guest differs from what was brought in:\n%s", out)
	}
}

func TestUntrackedFilesComeWhenAskedAndIgnoredOnesByName(t *testing.T) {
	r := furnished(t)
	r.write(".gitignore", "*.log\nbuild/\n")
	r.write(".bangerinclude", "build/keep/\n*.env\n")
	r.commit("ignore")
	r.write("new", "untracked\n")
	r.write("some.log", "ignored\n")
	r.write("build/keep/it", "ignored, included\n")
	r.write("build/not", "ignored\n")
	r.write("local.env", "untracked, included\n")
	r.write("../.config/git/ignore", "*.swp\n")
	r.write("x.swp", "ignored by the user\n")

	p := r.plan(Options{})
	if p.Left != 1 || len(p.Untracked) != 0 {
		t.Errorf("%d stay, %q come; want one to stay", p.Left, p.Untracked)
	}
	r.mustDeliver(Options{})
	r.sameFiles("new", "some.log", "build/not", "x.swp")
	if err := os.RemoveAll(r.path); err != nil {
		t.Fatal(err)
	}
	r.mustDeliver(Options{Untracked: true})
	r.sameFiles("some.log", "build/not", "x.swp")
	if got := r.guest("ls-tree", "-r", "--name-only", baseRef, "new", "build"); got != "build/keep/it\nnew\n" {
		t.Errorf("in the tree as brought in: %q", got)
	}
}

func TestIdentityAndOriginTravelWithoutCredentials(t *testing.T) {
	r := furnished(t)
	r.host("remote", "add", "origin", "https://me:secret@example.com/a/b.git")
	r.host("config", "user.email", "work@example.com")
	r.host("config", "core.hooksPath", "/somewhere")
	r.mustDeliver(Options{})
	for want, args := range map[string][]string{
		"https://example.com/a/b.git\n": {"remote", "get-url", "origin"},
		"work@example.com\n":            {"config", "user.email"},
		"person@example.com\n":          {"config", "--global", "user.email"},
		"A Person\n":                    {"config", "user.name"},
	} {
		if got := r.guest(args...); got != want {
			t.Errorf("%v is %q, want %q", args, got, want)
		}
	}
	config, err := os.ReadFile(r.path + "/.git/config")
	if err != nil || strings.Contains(string(config), "secret") || strings.Contains(string(config), "hooks") {
		t.Errorf("%v, %s", err, config)
	}
}

func TestCredentialsAreTakenOutOfAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"https://example.com/a":             "https://example.com/a",
		"https://token@example.com/a":       "https://example.com/a",
		"https://me:p%zz@w@example.com/a@b": "https://example.com/a@b",
		"http://me:pw@example.com":          "http://example.com",
		"ssh://git@example.com/a":           "ssh://git@example.com/a",
		"ssh://git:pw@example.com:22/a":     "ssh://git@example.com:22/a",
		"git@example.com:a/b":               "git@example.com:a/b",
		"../sibling@2":                      "../sibling@2",
	} {
		if got := withoutCredentials(address); got != want {
			t.Errorf("%s becomes %s, want %s", address, got, want)
		}
	}
}

func TestHistoryComesAsDeepAsAsked(t *testing.T) {
	r := furnished(t)
	r.host("tag", "light")
	r.host("tag", "-a", "-m", "heavy", "heavy")
	r.host("tag", "elsewhere", "HEAD~1")
	r.write("README", "third\n")
	r.host("switch", "-q", "-c", "other")
	r.commit("three")
	for _, c := range []struct {
		o           Options
		count, tags string
	}{
		{Options{Depth: 2}, "2\n", ""},
		{Options{Depth: 9}, "3\n", ""},
		{Options{Mode: Full}, "3\n", "elsewhere\nheavy\nlight\n"},
		{Options{Branch: "mine", From: "HEAD~1"}, "1\n", "heavy\nlight\n"},
	} {
		if err := os.RemoveAll(r.path); err != nil {
			t.Fatal(err)
		}
		r.mustDeliver(c.o)
		if got := r.guest("rev-list", "--count", "HEAD"); got != c.count {
			t.Errorf("%+v: %q commits, want %q", c.o, got, c.count)
		}
		if got := r.guest("tag"); got != c.tags {
			t.Errorf("%+v: tags %q, want %q", c.o, got, c.tags)
		}
		if out := r.guest("fsck", "--no-dangling"); out != "" {
			t.Errorf("%+v: git fsck: %s", c.o, out)
		}
	}
	if got := r.guest("branch", "--show-current"); got != "mine\n" {
		t.Errorf("on %q", got)
	}
	if content, err := os.ReadFile(r.path + "/README"); err != nil || string(content) != "second\n" {
		t.Errorf("README of the commit before is %q, %v", content, err)
	}
}

func TestOddRepositoriesGoIn(t *testing.T) {
	for name, make := range map[string]func(*rig){
		"no commits yet": func(r *rig) { r.remove(".git"); r.host("init", "-q"); r.host("add", "README", "run") },
		"detached head":  func(r *rig) { r.host("checkout", "-q", "--detach") },
		"shallow": func(r *rig) {
			r.host("clone", "-q", "--depth=1", "file://"+r.repo, "../shallow")
			r.repo += "/../shallow"
		},
		"worktree": func(r *rig) {
			r.host("worktree", "add", "-q", "../tree")
			r.repo += "/../tree"
			r.write("README", "there\n")
		},
		"sparse":              func(r *rig) { r.host("sparse-checkout", "set", "dir") },
		"split index":         func(r *rig) { r.host("update-index", "--split-index"); r.write("README", "x\n") },
		"assumed":             func(r *rig) { r.host("update-index", "--assume-unchanged", "README"); r.write("README", "hidden\n") },
		"skipped":             skip,
		"skipped and assumed": func(r *rig) { skip(r); r.host("update-index", "--assume-unchanged", "README", "empty") },
		"skipped, not sparse": func(r *rig) { r.host("config", "core.sparseCheckout", "false"); skip(r) },
		"skipped and staged": func(r *rig) {
			r.write("run", "staged\n")
			r.host("add", "run")
			r.host("update-index", "--skip-worktree", "run")
			skip(r)
		},
		"link beside skipped ones": func(r *rig) {
			r.host("update-index", "--skip-worktree", "dir/deep/file")
			r.remove("dir")
			r.write("../elsewhere/deep/file", "not ours\n")
			r.symlink("../elsewhere", "dir")
		},
		"staged": func(r *rig) { r.write("new", "n\n"); r.host("add", "new"); r.host("rm", "-q", "run") },
		"crlf": func(r *rig) {
			r.host("config", "core.autocrlf", "true")
			r.write("crlf", "a\r\nb\r\n")
			r.commit("crlf")
			r.write("README", "a\r\n")
		},
		"attributes": func(r *rig) {
			r.write(".gitattributes", "run export-ignore\nREADME filter=loud text eol=crlf ident\n")
			r.commit("attributes")
		},
		"packed":           func(r *rig) { r.host("gc", "-q"); r.write("README", "after\n") },
		"sha256":           func(r *rig) { r.remove(".git"); r.host("init", "-q", "--object-format=sha256"); r.commit("one") },
		"case in index v4": func(r *rig) { r.host("update-index", "--index-version=4"); r.write("README", "v4\n") },
		"odd names":        oddNames,
		"link for a directory": func(r *rig) {
			r.remove("dir")
			r.write("../elsewhere/deep/file", "not ours\n")
			r.symlink("../elsewhere", "dir")
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := furnished(t)
			make(r)
			r.repo = filepath.Clean(r.repo)
			if name == "worktree" {
				r.mustDeliver(Options{})
				r.sameFiles()
				return
			}
			check := r.untouched()
			r.mustDeliver(Options{Untracked: true})
			check()
			r.sameFiles()
			switch {
			case name == "staged" || name == "assumed" || name == "no commits yet" || name == "link beside skipped ones":
			case strings.HasPrefix(name, "skipped"):
				if out := r.guest("diff", "--stat", baseRef); out != "" {
					t.Errorf("the guest differs from what was brought in:\n%s", out)
				}
			default:
				r.sameStatus()
			}
		})
	}
}

// skip has git skip a file that is there and one that is not.
func skip(r *rig) {
	r.host("update-index", "--skip-worktree", "README", "empty")
	r.write("README", "hidden\n")
	r.remove("empty")
}

func oddNames(r *rig) {
	for _, name := range []string{
		"with space", "quote\"s'", "new\nline", "ünï/cödé", "-dash", "--help", "tab\t", "back\\slash",
		strings.Repeat("n", 255), strings.Repeat("d/", 90) + "deep", "latin\xe9", ":colon", "*?[glob]", "trailing.", "x.tar/y",
	} {
		r.write(name, name)
	}
	r.commit("odd")
	r.write("-dash", "changed")
	r.write("new\nline", "changed")
}
