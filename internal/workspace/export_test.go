package workspace

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/patch"
)

// in runs a script in a directory as somebody there would.
func in(t testing.TB, dir, home, script string) string {
	t.Helper()
	cmd := exec.Command("bash", "-euc", script)
	cmd.Dir = dir
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

func (r *rig) onHost(script string) string {
	r.Helper()
	return in(r, r.repo, os.Getenv("HOME"), script)
}
func (r *rig) there(script string) string { r.Helper(); return in(r, r.path, r.home, script) }

func (r *rig) scratch() string  { return filepath.Join(filepath.Dir(r.home), "exports") }
func (r *rig) journals() string { return filepath.Join(filepath.Dir(r.home), "applies") }

func (r *rig) taking(commit string) Taking {
	return Taking{Path: r.record.GuestPath, Base: r.record.BaseTree, Head: r.record.HeadCommit, Commit: commit}
}

// work takes out what the guest did.
func (r *rig) work(commit string) *Work {
	r.Helper()
	w, err := TakeOut(context.Background(), standIn{r.home}, r.scratch(), r.taking(commit))
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(w.Close)
	return w
}

// patch is a work as text.
func (r *rig) patch(w *Work) string {
	r.Helper()
	var b bytes.Buffer
	if err := w.Patch(context.Background(), &b); err != nil {
		r.Fatal(err)
	}
	return b.String()
}

func (r *rig) apply(w *Work) patch.Applied {
	r.Helper()
	done, err := w.Apply(context.Background(), r.repo, r.journals())
	if err != nil {
		r.Fatal(err)
	}
	return done
}

func paths(w *Work) string {
	var all []string
	for _, c := range w.Changes {
		all = append(all, c.Path)
	}
	return strings.Join(all, " ")
}

// gitState is everything in a guest's git directory, byte for byte, with its times
// but for those of objects, which git may renew.
const gitState = `cd .git; find . -type f -print0 | sort -z | xargs -0 sha256sum
find . -path ./banger -printf '%p\n' -o -path './objects/*' -printf '%p\n' -o -printf '%p %T@ %m\n' | sort
cd ..; find . -path ./.git -prune -o -printf '%p %T@ %C@ %m\n' | sort`

func TestExportHoldsOnlyTheGuestsWork(t *testing.T) {
	r := furnished(t)
	r.onHost(`for i in 0 1 2 3 4 5; do echo $i >f$i; done; echo ignored >.gitignore; git add -A; git commit -qm more
echo mine >>f0; rm f1; echo new >hostnew; git add hostnew`)
	r.mustDeliver(Options{})
	r.there(`echo theirs >>f2; git commit -qam theirs; echo more >>f3; git add f3; rm f4; echo x >untracked; echo x >ignored
chmod +x f5; ln -s nowhere new-link; : >nothing; git branch other; git stash -q; git stash apply -q`)
	before := r.there(gitState)
	w := r.work("")
	if after := r.there(gitState); after != before {
		t.Errorf("the export changed the guest:\n%s\nwas\n%s", after, before)
	}
	if got := paths(w); got != "f2 f3 f4 f5 new-link nothing untracked" {
		t.Errorf("the work is %s", got)
	}
	text := r.patch(w)
	if strings.Contains(text, "mine") || strings.Contains(text, "hostnew") {
		t.Errorf("the patch holds what the host had:\n%s", text)
	}
	if done := r.apply(w); done.Written != 6 || done.Removed != 1 {
		t.Errorf("%+v", done)
	}
	r.sameFiles("ignored")
	if left, _ := os.ReadDir(r.journals()); len(left) > 0 {
		t.Errorf("journals are left: %v", left)
	}
}

// On the tree it came from a patch fits as it is, and on a clean clone with the
// same edits. In both it gives what the guest has.
func TestPatchAppliesWhereTheGuestsTreeBegan(t *testing.T) {
	r := furnished(t)
	r.onHost(`echo edited >>README; rm run; echo new >brought; git add brought`)
	r.onHost(`git clone -q . ../clone; cd ../clone; echo edited >>README; rm run; echo new >brought`)
	r.mustDeliver(Options{})
	r.there(`echo in the guest >>README; git commit -qam guest; head -c 2000 /dev/urandom >binary; rm dir/deep/file; echo x >>brought; ln -sf README link`)
	file := filepath.Join(t.TempDir(), "work.patch")
	writeFile(t, file, r.patch(r.work("")))
	for _, dir := range []string{r.repo, r.repo + "/../clone"} {
		in(t, dir, os.Getenv("HOME"), "git apply --check "+file+"; git apply "+file)
	}
	r.sameFiles()
	clone := *r
	clone.repo = filepath.Join(r.repo, "../clone")
	clone.sameFiles()
}

// Against the commit, a patch holds the edits that were brought in too, and fits a
// clean clone.
func TestPatchAgainstACommitFitsIt(t *testing.T) {
	r := furnished(t)
	r.onHost(`git clone -q . ../clone; echo edited >>README`)
	r.mustDeliver(Options{})
	r.there("echo guest >>dir/deep/file")
	file := filepath.Join(t.TempDir(), "work.patch")
	writeFile(t, file, r.patch(r.work(r.record.HeadCommit)))
	clone := *r
	clone.repo = filepath.Join(r.repo, "../clone")
	clone.onHost("git apply " + file)
	clone.sameFiles()
	if _, err := TakeOut(context.Background(), standIn{r.home}, r.scratch(), r.taking("no-such")); banger.CodeOf(err) != banger.NotFound {
		t.Errorf("a commit that is not there: %v", err)
	}
}

func TestNothingIsExportedWhereNothingWasDone(t *testing.T) {
	r := furnished(t)
	r.onHost("echo edited >>README")
	r.mustDeliver(Options{})
	w := r.work("")
	if text := r.patch(w); text != "" || len(w.Changes) > 0 {
		t.Errorf("%v, %q", w.Changes, text)
	}
	r.apply(w)
	r.sameFiles()
}

// Times and sizes say nothing of a file that was given its old ones again.
func TestExportSeesAFileThatHasItsOldTimeAgain(t *testing.T) {
	r := furnished(t)
	if err := touch(r.at("README"), "2020-02-02 02:02:02"); err != nil {
		t.Fatal(err)
	}
	r.mustDeliver(Options{})
	r.there(`touch -r README ref; printf 'sneaky\n' >README; touch -r ref README; rm ref`)
	if got := paths(r.work("")); got != "README" {
		t.Errorf("the work is %q", got)
	}
}

// Nor of one that is written within the second in which it was brought in, and
// looked at in a later one.
func TestExportSeesAFileWrittenAtOnce(t *testing.T) {
	for range 20 {
		r := newRig(t)
		r.write("f", "1\n")
		r.commit("one")
		r.write("f", "2\n")
		second := time.Now().Unix()
		r.mustDeliver(Options{})
		r.inGuest("f", "3\n")
		if time.Now().Unix() != second {
			continue // too late: once more
		}
		for time.Now().Unix() == second {
			time.Sleep(10 * time.Millisecond)
		}
		if got := paths(r.work("")); got != "f" {
			t.Errorf("the work is %q", got)
		}
		return
	}
	t.Skip("this machine never brings a repository in within a second")
}

// The guest's repository may be configured as it likes.
func TestNothingOfTheGuestsRunsOrDistorts(t *testing.T) {
	r := furnished(t)
	r.mustDeliver(Options{})
	r.there(`for what in clean smudge process; do git config filter.evil.$what "touch ran-$what; cat"; done
git config diff.evil.textconv 'touch ran-textconv; cat'; git config diff.external 'touch ran-diff'; git config diff.evil.command 'touch ran-command'
git config core.fsmonitor 'touch ran-monitor'; git config core.hooksPath hooks; git config diff.noprefix true; git config diff.mnemonicPrefix true
git config core.pager 'touch ran-pager'; git config color.ui always; git config diff.renames copies; git config core.quotePath false
mkdir hooks; for h in post-index-change pre-commit post-checkout reference-transaction; do printf '#!/bin/sh\ntouch ran-hook\n' >hooks/$h; chmod +x hooks/$h; done
echo '* filter=evil diff=evil' >.gitattributes; printf 'one\r\ntwo\n' >crlf; echo edited >>README
git update-index --assume-unchanged README; git update-index --skip-worktree dir/deep/file; echo edited >>dir/deep/file; cp README copied; rm -f ran-* [0-9]*`)
	w := r.work("")
	if got := paths(w); got != ".gitattributes README copied crlf dir/deep/file hooks/post-checkout hooks/post-index-change hooks/pre-commit hooks/reference-transaction" {
		t.Errorf("the work is %s", got)
	}
	text := r.patch(w)
	if !strings.Contains(text, "diff --git a/README b/README\n") || !strings.Contains(text, "+one\r\n+two\n") {
		t.Errorf("the patch is\n%s", text)
	}
	r.apply(w)
	r.sameFiles()
	for _, dir := range []string{r.repo, r.path} {
		if ran, _ := filepath.Glob(dir + "/ran-*"); len(ran) > 0 {
			t.Errorf("these ran: %v", ran)
		}
	}
}

func TestExportConvertsLinesAsTheRepositoryDoes(t *testing.T) {
	r := newRig(t)
	r.write(".gitattributes", "*.txt text eol=crlf\n*.raw -text\n")
	r.write("a.txt", "one\r\ntwo\r\n")
	r.write("b.txt", "one\r\n")
	r.write("c.raw", "one\r\ntwo\n")
	r.commit("one")
	r.host("rm", "-q", "--cached", "a.txt")
	r.host("reset", "-q", "--hard")
	r.mustDeliver(Options{})
	r.there(`printf 'one\r\nthree\r\n' >a.txt; printf 'one\r\ntwo\nthree' >c.raw; printf 'new\r\n' >d.txt`)
	w := r.work("")
	if got := paths(w); got != "a.txt c.raw d.txt" {
		t.Errorf("the work is %s", got)
	}
	r.apply(w)
	r.sameFiles()
}

// Repositories that the guest made are not in a patch; the rest is.
func TestRepositoriesInTheWorkAreNamedAndLeftOut(t *testing.T) {
	r := furnished(t)
	r.mustDeliver(Options{})
	r.there(`git init -q cloned; cd cloned; echo x >x; git add x; git commit -qm x; cd ..; echo more >>README`)
	w := r.work("")
	changed, made := w.Repositories()
	if len(changed) != 0 || len(made) != 1 || made[0] != "cloned" {
		t.Errorf("changed %v, made %v", changed, made)
	}
	if text := r.patch(w); strings.Contains(text, "cloned") || !strings.Contains(text, "more") {
		t.Errorf("the patch is\n%s", text)
	}
	if done := r.apply(w); done.Written != 1 {
		t.Errorf("%+v", done)
	}
}

func TestMailsAreTheGuestsCommits(t *testing.T) {
	r := furnished(t)
	r.onHost("git clone -q . ../clone")
	r.mustDeliver(Options{})
	r.there(`echo 1 >>README; git commit -qam 'First: a subject'; head -c 3000 /dev/urandom >bin; chmod +x README; git add -A; git commit -qm second
git config format.subjectPrefix NOT; git config format.attach true; git config format.signature none`)
	var b bytes.Buffer
	dirty, err := Mailbox(context.Background(), standIn{r.home}, r.taking(""), &b)
	if err != nil || dirty {
		t.Fatal(dirty, err)
	}
	file := filepath.Join(t.TempDir(), "work.mbox")
	writeFile(t, file, b.String())
	clone := *r
	clone.repo = filepath.Join(r.repo, "../clone")
	if !strings.Contains(b.String(), "\n+1\n") {
		t.Errorf("the mails cannot be read:\n%s", b.String())
	}
	clone.onHost("git am -q " + file)
	clone.sameFiles()
	if got := clone.host("log", "--format=%s", "-2"); got != "second\nFirst: a subject\n" {
		t.Errorf("the commits are %q", got)
	}
	r.there("echo loose >>README")
	if dirty, err := Mailbox(context.Background(), standIn{r.home}, r.taking(""), &b); err != nil || !dirty {
		t.Errorf("with loose changes: %v, %v", dirty, err)
	}
}

func TestMailsAreRefusedWhereTheyAreNotTheWork(t *testing.T) {
	for what, c := range map[string]struct{ host, guest string }{
		"a dirty tree":            {"echo x >>README", "git commit -qam x"},
		"a merge":                 {"", "git checkout -qb side; echo x >x; git add x; git commit -qm x; git checkout -q main; echo y >y; git add y; git commit -qm y; git merge -q side"},
		"a branch from nowhere":   {"", "git checkout -q --orphan new; git commit -qm new"},
		"a commit that is undone": {"", "git commit -q --amend -m other"},
	} {
		t.Run(what, func(t *testing.T) {
			r := furnished(t)
			r.onHost(c.host)
			r.mustDeliver(Options{})
			r.there(c.guest)
			var b bytes.Buffer
			_, err := Mailbox(context.Background(), standIn{r.home}, r.taking(""), &b)
			if banger.CodeOf(err) != banger.Conflict || !strings.Contains(strings.Join(banger.HintsOf(err), " "), "--format patch") {
				t.Errorf("%v, %v", err, banger.HintsOf(err))
			}
		})
	}
}

// What is not there any more is said.
func TestExportSaysWhatIsMissing(t *testing.T) {
	for what, script := range map[string]string{
		"the repository":      "rm -rf .git",
		"what was brought in": "rm -rf .git; git init -q",
	} {
		r := furnished(t)
		r.mustDeliver(Options{})
		r.there(script)
		_, err := TakeOut(context.Background(), standIn{r.home}, r.scratch(), r.taking(""))
		if banger.CodeOf(err) != banger.NotFound {
			t.Errorf("without %s: %v", what, err)
		}
	}
}

// Where git is told not to go by permissions, every file may be executable.
func TestApplyWherePermissionsDoNotCount(t *testing.T) {
	r := furnished(t)
	r.onHost("git config core.fileMode false; chmod 755 README; chmod 644 run")
	r.mustDeliver(Options{})
	r.there("echo more >>README; echo more >>run; echo new >new")
	if done := r.apply(r.work("")); done.Written != 3 {
		t.Errorf("%+v", done)
	}
	if out := r.onHost("tail -qn 1 README run new; stat -c %a README run"); out != "more\nmore\nnew\n755\n644\n" {
		t.Errorf("the host has\n%s", out)
	}
}
