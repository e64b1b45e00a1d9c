package patch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"banger"
)

var (
	before = files{
		"plain": "one", "script": "x #!/bin/sh", "link": "-> plain", "gone": "bye", "deep/er/gone": "bye", "deep/stays": "here",
		"becomes-dir": "file", "becomes-file/a": "1", "becomes-file/b/c": "2", "becomes-link": "file", "was-link": "-> deep",
		"same": "same", "dangling": "-> nowhere",
	}
	after = files{
		"plain": "two", "script": "#!/bin/sh", "link": "-> script", "deep/stays": "x here", "new/file": "", "new/link": "-> ../..",
		"becomes-dir/in/it": "now", "becomes-file": "now", "becomes-link": "-> same", "was-link/a": "dir now",
		"same": "same", "dangling": "-> /etc/passwd", "-dash": "x", "quote\"s \\ and\nlines": "odd", "\xff": "no utf-8",
		strings.Repeat("n", 255): "long",
	}
)

func TestApplyMakesOneTreeOfAnother(t *testing.T) {
	r := newRig(t, before)
	done, err := r.apply(r.contents.between(before, after))
	if err != nil {
		t.Fatal(err)
	}
	r.holds(after)
	if done.Removed != 6 || done.Already != 0 {
		t.Errorf("%+v", done)
	}
	again, err := r.apply(r.contents.between(before, after))
	if err != nil || again.Written+again.Removed != 0 {
		t.Errorf("again: %+v, %v", again, err)
	}
	if _, err := r.apply(r.contents.between(after, before)); err != nil {
		t.Fatal(err)
	}
	r.holds(before)
}

func TestApplyRefusesWhatChangedOnTheHost(t *testing.T) {
	for what, change := range map[string]func(dir string) error{
		"other content": func(dir string) error { return os.WriteFile(dir+"/plain", []byte("mine"), 0o644) },
		"other mode":    func(dir string) error { return os.Chmod(dir+"/plain", 0o755) },
		"other kind":    func(dir string) error { return errors.Join(os.Remove(dir+"/plain"), os.Symlink("x", dir+"/plain")) },
		"a pipe": func(dir string) error {
			return errors.Join(os.Remove(dir+"/plain"), syscall.Mkfifo(dir+"/plain", 0o644))
		},
		"a directory":        func(dir string) error { return errors.Join(os.Remove(dir+"/plain"), os.Mkdir(dir+"/plain", 0o755)) },
		"removed":            func(dir string) error { return os.Remove(dir + "/plain") },
		"removed, was to go": func(dir string) error { return os.WriteFile(dir+"/gone", []byte("mine"), 0o644) },
		"other target":       func(dir string) error { return errors.Join(os.Remove(dir+"/link"), os.Symlink("x", dir+"/link")) },
		"in place of a new one": func(dir string) error {
			return errors.Join(os.Mkdir(dir+"/new", 0o755), os.WriteFile(dir+"/new/file", []byte("mine"), 0o644))
		},
		"in a directory that goes": func(dir string) error {
			return os.WriteFile(dir+"/becomes-file/b/mine", []byte("mine"), 0o644)
		},
		"a link above": func(dir string) error {
			return errors.Join(os.RemoveAll(dir+"/deep"), os.Symlink("../canary", dir+"/deep"))
		},
		"a link above, new": func(dir string) error { return os.Symlink("../canary", dir+"/new") },
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, before)
			must(t, change(r.root))
			was := read(t, r.root)
			_, err := r.apply(r.contents.between(before, after))
			if banger.CodeOf(err) != banger.Conflict {
				t.Errorf("error %v", err)
			}
			if now := read(t, r.root); now != was {
				t.Errorf("the tree is\n%s\nwas\n%s", now, was)
			}
		})
	}
}

func TestApplyKeepsPermissions(t *testing.T) {
	r := newRig(t, files{"secret": "1", "tool": "x 1"})
	must(t, os.Chmod(r.root+"/secret", 0o600))
	must(t, os.Chmod(r.root+"/tool", 0o750))
	if _, err := r.apply(r.contents.between(files{"secret": "1", "tool": "x 1"}, files{"secret": "x 2", "tool": "2"})); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{"secret": 0o700, "tool": 0o640} {
		if info, err := os.Stat(filepath.Join(r.root, name)); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
}

// A failure in the middle, here a name that only the file system refuses, takes
// all back.
func TestApplyThatFailsLeavesTheTreeAsItWas(t *testing.T) {
	r := newRig(t, before)
	changes := r.contents.between(before, after)
	delete(r.contents, r.contents.file("dir now").ID)
	was := read(t, r.root)
	if _, err := r.apply(changes); err == nil {
		t.Error("a content that is missing was no error")
	}
	if now := read(t, r.root); now != was {
		t.Errorf("the tree is\n%s\nwas\n%s", now, was)
	}
	r.holds(before)
}

func TestApplyTakesBackWhatItDidWhenAFileIsWrittenMeanwhile(t *testing.T) {
	for _, name := range []string{"plain", "deep/er/gone"} {
		r := newRig(t, before)
		steps := 0
		ap := &applier{step: func() {
			if steps++; steps == 1 {
				must(t, os.WriteFile(filepath.Join(r.root, name), []byte("mine"), 0o644))
			}
		}}
		_, err := ap.apply(r.root, r.journals, r.contents.between(before, after), r.contents)
		if banger.CodeOf(err) != banger.Conflict {
			t.Errorf("%s: %v", name, err)
		}
		want := files{name: "mine"}
		for p, text := range before {
			if p != name {
				want[p] = text
			}
		}
		r.holds(want)
	}
}

// saved has a file replaced as editors do, as soon as there is another in its place.
func (r *rig) saved(name, text string) {
	r.t.Helper()
	must(r.t, os.WriteFile(r.root+"-saved", []byte(text), 0o644))
	must(r.t, os.Rename(r.root+"-saved", filepath.Join(r.root, name)))
}

// At any step, what is saved is there afterwards, or the apply came after it.
func TestAnEditorThatSavesAtAnyStepLosesNothing(t *testing.T) {
	old, changed := files{"plain": "one", "run": "-> plain"}, files{"plain": "two", "run": "-> two"}
	for at := 1; ; at++ {
		r := newRig(t, old)
		steps := 0
		ap := &applier{step: func() {
			if steps++; steps == at {
				r.saved("plain", "mine")
			}
		}}
		_, err := ap.apply(r.root, r.journals, r.contents.between(old, changed), r.contents)
		if steps < at {
			break
		}
		if text := read(t, filepath.Join(r.root, "plain")); !strings.Contains(text, "mine") {
			t.Errorf("step %d: there is %q: %v", at, text, err)
		}
		if banger.CodeOf(err) == banger.Conflict {
			r.holds(files{"plain": "mine", "run": "-> plain"})
		}
	}
}

// Here what is taken back is saved in the moment before.
func TestAnEditorThatSavesWhileAllIsTakenBackLosesNothing(t *testing.T) {
	old, changed := files{"a": "one", "b": "one"}, files{"a": "two", "b": "two"}
	r := newRig(t, old)
	steps := 0
	ap := &applier{step: func() {
		switch steps++; steps {
		case 3:
			must(t, os.WriteFile(filepath.Join(r.root, "b"), []byte("mine"), 0o644))
		case 5:
			r.saved("a", "mine too")
		}
	}}
	if _, err := ap.apply(r.root, r.journals, r.contents.between(old, changed), r.contents); err == nil {
		t.Error("it was applied")
	}
	for name, want := range map[string]string{"a": "mine too", "b": "mine"} {
		if got, err := os.ReadFile(filepath.Join(r.root, name)); string(got) != want {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
}

func TestTwoAppliesDoNotMeet(t *testing.T) {
	r := newRig(t, before)
	var second error
	ap := &applier{step: func() {
		if second == nil {
			_, second = Apply(r.root, r.journals, r.contents.between(before, after), r.contents)
			must(t, Recover(r.journals, func(string) { t.Error("a living apply was undone") }))
		}
	}}
	if _, err := ap.apply(r.root, r.journals, r.contents.between(before, after), r.contents); err != nil {
		t.Error(err)
	}
	if banger.CodeOf(second) != banger.Busy {
		t.Errorf("the second: %v", second)
	}
	r.holds(after)
}

// The test runs itself as the process that is killed at the Nth step.
const killAt = "BANGER_TEST_KILL_AT"

func TestApplyThatIsKilledAnywhereIsUndone(t *testing.T) {
	if at := os.Getenv(killAt); at != "" {
		applyAndDie(t, at)
		return
	}
	steps := 0
	r := newRig(t, before)
	_, err := (&applier{step: func() { steps++ }}).apply(r.root, r.journals, r.contents.between(before, after), r.contents)
	must(t, err)
	if steps < 15 {
		t.Fatalf("only %d steps", steps)
	}
	for at := 1; at <= steps; at++ {
		r := newRig(t, before)
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s %s", killAt, at, r.root, r.journals))
		if out, err := cmd.CombinedOutput(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("step %d: the process was not killed: %v\n%s", at, err, out)
		}
		said := ""
		must(t, Recover(r.journals, func(s string) { said += s }))
		// The last three steps are after it was settled.
		if at > steps-3 {
			r.holds(after)
		} else {
			r.holds(before)
		}
		if undone := strings.HasSuffix(said, "has been undone"); said == "" || undone != (at <= steps-3) {
			t.Errorf("step %d: it said %q", at, said)
		}
		if _, err := r.apply(r.contents.between(before, after)); err != nil {
			t.Errorf("step %d: again: %v", at, err)
		}
		r.holds(after)
	}
}

func applyAndDie(t *testing.T, how string) {
	var at int
	var root, journals string
	if _, err := fmt.Sscan(how, &at, &root, &journals); err != nil {
		t.Fatal(err)
	}
	c := contents{}
	ap := &applier{step: func() {
		if at--; at == 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}}
	_, err := ap.apply(root, journals, c.between(before, after), c)
	t.Fatalf("it was done before its end came: %v", err)
}

// halfDone applies all and ends as if it were killed then.
func (r *rig) halfDone() {
	r.t.Helper()
	changes := r.contents.between(before, after)
	a := &applying{journal: &journal{root: r.root, staging: StagingPrefix + "x", changes: changes}}
	var err error
	a.tree, err = openTree(r.root)
	must(r.t, err)
	defer a.close()
	must(r.t, a.stage(changes, r.contents))
	must(r.t, a.journal.write(r.journals))
	must(r.t, a.commit())
}

func TestRecoverLeavesWhatSomebodyElseWrote(t *testing.T) {
	r := newRig(t, before)
	r.halfDone()
	must(t, os.WriteFile(r.root+"/plain", []byte("mine"), 0o644))
	err := Recover(r.journals, func(string) {})
	if banger.CodeOf(err) != banger.Conflict || !strings.Contains(err.Error(), `"plain"`) {
		t.Errorf("%v", err)
	}
	got, _ := os.ReadFile(r.root + "/plain")
	old, _ := os.ReadFile(r.root + "/" + StagingPrefix + "x/old/plain")
	if string(got) != "mine" || string(old) != "one" {
		t.Errorf("the tree has %q, what was kept is %q", got, old)
	}
}

func TestJournalsThatWereNotFinishedAreNothing(t *testing.T) {
	r := newRig(t, before)
	files{"torn": r.root + "\x00" + StagingPrefix + "torn\x00:1"}.write(t, r.journals)
	if err := Recover(r.journals, func(string) {}); err == nil {
		t.Error("a torn journal was believed")
	}
}

func TestRecoverWaitsForATreeThatIsNotThere(t *testing.T) {
	r := newRig(t, before)
	r.halfDone()
	must(t, os.Rename(r.root, r.root+".away"))
	waits := func() {
		t.Helper()
		said := ""
		must(t, Recover(r.journals, func(s string) { said += s }))
		if !strings.Contains(said, r.root) || !strings.Contains(said, "is not there now") {
			t.Errorf("it said %q", said)
		}
	}
	waits()
	must(t, os.Mkdir(r.root, 0o755)) // where it is mounted otherwise
	files{"plain": "two"}.write(t, r.root)
	waits()
	if got := read(t, r.root+"/plain"); !strings.Contains(got, "two") {
		t.Errorf("in another tree there is %s", got)
	}
	must(t, os.RemoveAll(r.root))
	must(t, os.Rename(r.root+".away", r.root))
	must(t, Recover(r.journals, func(string) {}))
	r.holds(before)
}

func TestRecoverForgetsAnApplyThatDidNothingToATreeThatIsGone(t *testing.T) {
	r := newRig(t, before)
	must(t, (&journal{root: r.root, staging: StagingPrefix + "x"}).write(r.journals))
	must(t, os.RemoveAll(r.root))
	must(t, Recover(r.journals, func(said string) { t.Errorf("it said %q", said) }))
	if left, _ := os.ReadDir(r.journals); len(left) > 0 {
		t.Errorf("journals are left: %v", left)
	}
}

// crlf is a git that keeps lines without the carriage returns that files have.
type crlf struct{ rig *rig }

func (g crlf) Copy(w io.Writer, id, path string) error {
	_, err := io.WriteString(w, strings.ReplaceAll(g.rig.contents[id], "\n", "\r\n"))
	return err
}

func (g crlf) Modes() bool { return true }

func (g crlf) Names(paths []string) (names []string, err error) {
	for _, p := range paths {
		content, err := os.ReadFile(filepath.Join(g.rig.root, p))
		must(g.rig.t, err)
		names = append(names, g.rig.contents.file(strings.ReplaceAll(string(content), "\r\n", "\n")).ID)
	}
	return names, nil
}

func TestApplyConvertsAsGitDoes(t *testing.T) {
	r := newRig(t, files{"a": "1\r\n2\r\n", "b": "1\r\n", "c": "1\r\n"})
	from, to := files{"a": "1\n2\n", "b": "1\n"}, files{"a": "1\n3\n", "new": "4\n"}
	if _, err := Apply(r.root, r.journals, r.contents.between(from, to), crlf{r}); err != nil {
		t.Fatal(err)
	}
	r.holds(files{"a": "1\r\n3\r\n", "c": "1\r\n", "new": "4\r\n"})
	done, err := Apply(r.root, r.journals, r.contents.between(from, to), crlf{r})
	if err != nil || done.Already != 3 {
		t.Errorf("again: %+v, %v", done, err)
	}
	_, err = Apply(r.root, r.journals, r.contents.between(files{"c": "other\n"}, files{"c": "x"}), crlf{r})
	if banger.CodeOf(err) != banger.Conflict {
		t.Errorf("another content: %v", err)
	}
}

// What a journal said before the tree was locked may be older than what was done.
func TestRecoverGoesByTheJournalAsItIsWhenTheTreeIsLocked(t *testing.T) {
	r := newRig(t, before)
	changes := r.contents.between(before, after)
	a := &applying{journal: &journal{root: r.root, staging: StagingPrefix + "x"}}
	var err error
	a.tree, err = openTree(r.root)
	must(t, err)
	must(t, a.journal.write(r.journals))
	early, err := readJournal(a.journal.file)
	must(t, err)
	must(t, a.stage(changes, r.contents))
	a.journal.changes = changes
	must(t, a.journal.write(r.journals))
	must(t, a.commit())
	a.close() // as if it were killed here
	must(t, early.recover(func(string) {}))
	r.holds(before)
}

func TestApplyKeepsTheDirectoryOfAFileThatIsRenamed(t *testing.T) {
	was, now := files{"private/a": "1"}, files{"private/b": "2"}
	r := newRig(t, was)
	must(t, os.Chmod(r.root+"/private", 0o700))
	kept := func() {
		t.Helper()
		if info, err := os.Stat(r.root + "/private"); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("the directory is %v, %v", info.Mode(), err)
		}
	}
	steps := 0
	ap := &applier{step: func() {
		if steps++; steps == 2 { // in place of the new one: all is taken back
			must(t, os.WriteFile(r.root+"/private/b", []byte("mine"), 0o644))
		}
	}}
	if _, err := ap.apply(r.root, r.journals, r.contents.between(was, now), r.contents); err == nil {
		t.Error("it was written over another's file")
	}
	kept()
	must(t, os.RemoveAll(r.root+"/private/b"))
	if _, err := r.apply(r.contents.between(was, now)); err != nil {
		t.Fatal(err)
	}
	kept()
}

func TestUndoMakesDirectoriesAsTheyWere(t *testing.T) {
	was := files{"private/in/a": "1", "private/in/b": "2", "file/x": "3", "plain": "one"}
	now := files{"file": "now", "plain": "two"}
	r := newRig(t, was)
	for dir, mode := range map[string]os.FileMode{"private": 0o700, "private/in": 0o750, "file": os.ModeSetgid | 0o770} {
		must(t, os.Chmod(filepath.Join(r.root, dir), mode))
	}
	before := read(t, r.root)
	ap := &applier{step: sync.OnceFunc(func() { must(t, os.WriteFile(r.root+"/plain", []byte("own"), 0o644)) })}
	if _, err := ap.apply(r.root, r.journals, r.contents.between(was, now), r.contents); banger.CodeOf(err) != banger.Conflict {
		t.Errorf("%v", err)
	}
	must(t, os.WriteFile(r.root+"/plain", []byte("one"), 0o644))
	if got := read(t, r.root); got != before {
		t.Errorf("the tree is\n%s\nwas\n%s", got, before)
	}
}
