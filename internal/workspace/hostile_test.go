package workspace

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"banger"
)

// liar is a guest that answers an export with what it likes.
type liar struct {
	answer func(to io.Writer) (status int)
}

func (l liar) Run(_ context.Context, c Command) (int, error) { return l.answer(c.Stdout), nil }

// forgery makes objects that no git would make, in a repository of its own.
type forgery struct {
	t   testing.TB
	dir string
}

func newForgery(t testing.TB) *forgery {
	f := &forgery{t, t.TempDir()}
	f.git("", "init", "-q", "--bare", ".")
	return f
}

func (f *forgery) git(stdin string, args ...string) string {
	f.t.Helper()
	g := git{dir: f.dir}
	out, err := g.feed(context.Background(), strings.NewReader(stdin), args...)
	if err != nil {
		f.t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func (f *forgery) blob(content string) string { return f.git(content, "hash-object", "-w", "--stdin") }

// item is an entry of a tree, as it is written.
type item struct{ mode, name, id string }

// tree writes a tree with these entries, in their order, whatever they are.
func (f *forgery) tree(items ...item) string {
	f.t.Helper()
	var b bytes.Buffer
	for _, i := range items {
		raw, err := hex.DecodeString(i.id)
		if err != nil {
			f.t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %s\x00%s", i.mode, i.name, raw)
	}
	return f.git(b.String(), "hash-object", "-w", "-t", "tree", "--literally", "--stdin")
}

// send gives the answer of a guest whose tree went from one to another.
func (f *forgery) send(base, now string, ids ...string) func(io.Writer) int {
	f.t.Helper()
	pack := f.git(strings.Join(ids, "\n")+"\n", "pack-objects", "-q", "--stdout")
	return func(to io.Writer) int {
		_, _ = io.WriteString(to, base+" "+now+"\n"+pack)
		return 0
	}
}

// field is a host's tree with what lies beside it, and a record that it was brought
// in as it is.
func (f *forgery) field() (r *rig, base string, ids []string) {
	r = newRig(f.t.(*testing.T))
	r.write("good", "good\n")
	r.write("dir/file", "file\n")
	r.symlink("../canary", "out")
	r.write("../canary/file", "outside\n")
	r.commit("one")
	good, file, link := f.blob("good\n"), f.blob("file\n"), f.blob("../canary")
	sub := f.tree(item{"100644", "file", file})
	base = f.tree(item{"40000", "dir", sub}, item{"100644", "good", good}, item{"120000", "out", link})
	if got := strings.TrimSpace(r.host("rev-parse", "HEAD^{tree}")); got != base {
		f.t.Fatalf("the base is %s, not %s", base, got)
	}
	return r, base, []string{good, file, link, sub, base}
}

func TestAGuestThatLiesWritesNothing(t *testing.T) {
	f := newForgery(t)
	evil := f.blob("evil\n")
	link := f.blob("../canary")
	up := f.blob("..")
	leaf := f.tree(item{"100644", "config", evil})
	hook := f.tree(item{"100755", "post-checkout", evil})
	hooks := f.tree(item{"40000", "hooks", hook}, item{"100644", "config", evil})
	under := f.tree(item{"100644", "file", evil})
	deep := f.tree(item{"40000", "..", under})
	ids := []string{evil, link, up, leaf, hook, hooks, under, deep}

	trees := map[string][]item{
		"a path up":                       {{"40000", "..", under}},
		"a path up, further in":           {{"40000", "x", deep}},
		"a slash in a name":               {{"100644", "../canary/file", evil}},
		"an absolute name":                {{"100644", "/tmp/evil", evil}},
		"no name":                         {{"100644", "", evil}},
		"a dot":                           {{"40000", ".", under}},
		"the git directory":               {{"40000", ".git", hooks}},
		"its config":                      {{"100644", ".git/config", evil}},
		"a link in place of it":           {{"120000", ".git", link}},
		"a submodule in place of it":      {{"160000", ".git", evil}},
		"it in capitals":                  {{"40000", ".GIT", hooks}},
		"it by its short name":            {{"40000", "git~1", hooks}},
		"it as a stream":                  {{"40000", ".git::$INDEX_ALLOCATION", hooks}},
		"it with a dot after":             {{"40000", ".git.", hooks}},
		"it with a space after":           {{"40000", ".git ", hooks}},
		"it with something invisible":     {{"40000", ".g\u200cit", hooks}},
		"it behind a backslash":           {{"100644", `dir\.git\config`, evil}},
		"a way up behind a backslash":     {{"100644", `..\canary`, evil}},
		"a file through a link":           {{"40000", "out", under}, {"120000", "out", link}},
		"a link and a directory":          {{"120000", "a", link}, {"40000", "a", under}},
		"a file and a directory":          {{"100644", "a", evil}, {"40000", "a", under}},
		"a link twice":                    {{"120000", "a", link}, {"100644", "a", evil}},
		"a file through a link of theirs": {{"40000", "up", under}, {"120000", "up", up}},
		"where submodules come from":      {{"100644", ".gitmodules", evil}},
		"that as a link":                  {{"120000", ".gitmodules", link}},
		"what is not there":               {{"100644", "absent", strings.Repeat("1", 40)}},
		"a tree as a file":                {{"100644", "tree", under}},
		"a file as a tree":                {{"40000", "file", evil}},
		"where changes wait":              {{"40000", ".banger-apply-x", under}},
	}
	for what, items := range trees {
		t.Run(what, func(t *testing.T) {
			f := &forgery{t, f.dir}
			r, base, there := f.field()
			good, sub, out := there[0], there[3], there[2]
			all := append(items, item{"40000", "dir", sub}, item{"100644", "good", good}, item{"100644", "innocent", evil})
			if what != "a file through a link" {
				all = append(all, item{"120000", "out", out})
			}
			sort.SliceStable(all, func(i, j int) bool { return all[i].name < all[j].name })
			now := f.tree(all...)
			r.tries(f.send(base, now, append(append(there, ids...), now)...), base, false)
		})
	}
}

// Modes beyond what git knows become what it knows: here files, and a repository
// that is left out.
func TestAGuestsModesAreGits(t *testing.T) {
	f := newForgery(t)
	r, base, there := f.field()
	evil := f.blob("evil\n")
	now := f.tree(item{"60644", "dev", evil}, item{"40000", "dir", there[3]}, item{"100644", "good", there[0]}, item{"120000", "out", there[2]}, item{"10644", "pipe", evil}, item{"104777", "suid", evil}, item{"100666", "wide", evil})
	r.tries(f.send(base, now, append(there, evil, now)...), base, true)
	for _, name := range []string{"dev", "pipe"} {
		if _, err := os.Lstat(r.at(name)); err == nil {
			t.Errorf("%s was made", name)
		}
	}
	for name, want := range map[string]os.FileMode{"suid": 0o755, "wide": 0o644} {
		if info, err := os.Stat(r.at(name)); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", name, info, err, want)
		}
	}
}

// A guest cannot say that the host's file was brought in as it is, to have it
// written over: what was brought in is known by its content.
func TestAGuestCannotForgeWhatWasBroughtIn(t *testing.T) {
	f := newForgery(t)
	r, base, there := f.field()
	mine, evil := f.blob("mine\n"), f.blob("evil\n")
	r.write("good", "mine\n")
	forged := f.tree(item{"40000", "dir", there[3]}, item{"100644", "good", mine}, item{"120000", "out", there[2]})
	now := f.tree(item{"40000", "dir", there[3]}, item{"100644", "good", evil}, item{"120000", "out", there[2]})
	send := f.send(forged, now, append(there, mine, evil, forged, now)...)
	r.tries(send, base, false)
	r.tries(f.send(base, now, append(there[:4:4], mine, evil, forged, now)...), base, false) // without the base
	// The same with a base that is sent broken.
	r.tries(func(to io.Writer) int {
		var b bytes.Buffer
		send(&b)
		_, _ = to.Write(bytes.Replace(b.Bytes(), []byte(forged), []byte(base), 1))
		return 0
	}, base, false)
}

func TestAnAnswerThatIsNoneIsRefused(t *testing.T) {
	f := newForgery(t)
	r, base, there := f.field()
	now := f.tree(item{"40000", "dir", there[3]}, item{"120000", "out", there[2]})
	whole := f.send(base, now, append(there, now)...)
	var b bytes.Buffer
	whole(&b)
	for what, answer := range map[string]string{
		"nothing": "", "no line": strings.Repeat("x", 100_000), "no trees": "hello world\n", "options": "--output=/tmp/x --exec=x\n",
		"paths": "../../x " + now + "\n", "capitals": strings.ToUpper(base) + " " + strings.ToUpper(now) + "\n", "no pack": base + " " + now + "\n",
		"half of it": b.String()[:b.Len()/2], "a bit flipped": b.String()[:b.Len()-30] + "?" + b.String()[b.Len()-29:],
	} {
		t.Run(what, func(t *testing.T) {
			r.tries(func(to io.Writer) int { _, _ = io.WriteString(to, answer); return 0 }, base, false)
		})
	}
	r.tries(func(to io.Writer) int { whole(to); return 1 }, base, false) // whole, but it failed
}

// tries has a guest answer, and prints and applies what there is.
func (r *rig) tries(answer func(io.Writer) int, base string, works bool) {
	r.Helper()
	canary := filepath.Dir(r.repo)
	before, check := in(r, canary, "/", everything), r.untouched()
	var b bytes.Buffer
	w, err := TakeOut(context.Background(), liar{answer}, r.scratch(), Taking{Path: "/root/repo", Base: base})
	if err == nil {
		defer w.Close()
		err = w.Patch(context.Background(), &b)
	}
	if err == nil {
		_, err = w.Apply(context.Background(), r.repo, r.journals())
	}
	check()
	if works {
		if err != nil {
			r.Error(err)
		}
		return
	}
	if err == nil {
		r.Errorf("it was applied; as a patch it is\n%s", b.String())
	}
	if code := banger.CodeOf(err); code != banger.Conflict && code != banger.Internal {
		r.Errorf("%s: %v", code, err)
	}
	if after := in(r, canary, "/", everything); after != before {
		r.Errorf("the host has\n%s\nhad\n%s", after, before)
	}
	if left, _ := filepath.Glob(r.scratch() + "/*"); w == nil && len(left) > 0 {
		r.Errorf("these were left: %v", left)
	}
}

const everything = `find . -printf '%p %m %l %s\n' | sort; find . -type f -exec sha256sum {} + | sort`

// pretender is a guest whose clone seems to be at a commit of another name.
type pretender struct {
	standIn
	is, says string
}

func (p pretender) Run(ctx context.Context, c Command) (int, error) {
	var out bytes.Buffer
	to := c.Stdout
	c.Stdout = &out
	status, err := p.standIn.Run(ctx, c)
	_, _ = io.WriteString(to, strings.ReplaceAll(out.String(), p.is, p.says))
	return status, err
}

func TestGuestsWordsAreNoOptionsOfTheHostsGit(t *testing.T) {
	for _, says := range []string{"--output=/tmp/x", "--upload-pack=x", "HEAD", "../../x"} {
		r := furnished(t)
		r.mustDeliver(Options{})
		r.write("README", "changed\n")
		is := strings.TrimSpace(r.host("rev-parse", "HEAD"))
		_, err := r.deliver(Options{}, func(to *Target) { to.Guest = pretender{standIn{r.home}, is, says} })
		if banger.CodeOf(err) != banger.Conflict || !strings.Contains(err.Error(), says) {
			t.Errorf("a commit called %s: %v", says, err)
		}
	}
}

// A repository names as its submodules what are repositories of the host's own: one
// beside it, through a symlink, and one below it that it does not track.
func TestNoOtherRepositoryOfTheHostsIsTakenForASubmodule(t *testing.T) {
	r := furnished(t)
	r.onHost(`for at in ../priv lib2; do git init -q $at; echo secret >$at/secret; git -C $at add .; git -C $at commit -qm secret; done
echo /lib2 >.git/info/exclude; ln -s ../priv lib
for at in lib lib2; do git config -f .gitmodules submodule.$at.path $at; git config -f .gitmodules submodule.$at.url ./x; done`)
	r.commit("with submodules that are none")
	if found := r.plan(Options{Mode: Full}).Modules; len(found) > 0 {
		t.Errorf("these are taken for submodules: %+v", found)
	}
	r.mustDeliver(Options{Mode: Full})
	if out := r.there(`find . ! -type l \( -name secret -o -path './.git/modules*' \)`); out != "" {
		t.Errorf("the guest got\n%s", out)
	}
}

// flood is a guest that never ends its answer.
type flood struct{ standIn }

func (f flood) Run(_ context.Context, c Command) (int, error) {
	for range 65 {
		if _, err := c.Stdout.Write(make([]byte, 1<<20)); err != nil {
			return 0, err
		}
		_, _ = c.Stderr.Write(make([]byte, 1<<20))
	}
	return 0, nil
}

func TestAGuestsAnswerIsNotReadForEver(t *testing.T) {
	r := furnished(t)
	r.mustDeliver(Options{})
	_, err := r.deliver(Options{}, func(to *Target) { to.Guest = flood{standIn{r.home}} })
	if banger.CodeOf(err) != banger.Conflict || !strings.Contains(err.Error(), "more than 64 MiB") {
		t.Errorf("%v", err)
	}
}
