package workspace

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// shapes are the states a repository may be in, each a script that brings it there.
// $extra is a new name beside it.
var shapes = []struct {
	name, script string
	mode         string
	below        string // where the guest works: what a sparse checkout leaves out is not there
}{
	{name: "plain"},
	{name: "worktree", script: `git worktree add -q "$extra" -b beside; cd "$extra"`},
	{name: "shallow", script: `git clone -q --depth 1 "file://$PWD" "$extra"; cd "$extra"`},
	{name: "detached head", script: "git checkout -q --detach HEAD"},
	{name: "no commits", script: `git clone -q . "$extra"; cd "$extra"; rm -rf .git; git init -q; git add -A`},
	{name: "rebase in progress", script: `echo a >clash; git add clash; git commit -qm a; git checkout -q -b side HEAD~1; echo b >clash; git add clash; git commit -qm b
git rebase main >/dev/null 2>&1 && exit 1; true`},
	{name: "sparse", script: `mkdir -p kept left; echo 1 >kept/f; echo 2 >left/f; git add kept left; git commit -qm dirs; git sparse-checkout set kept`, below: "kept"},
	{name: "submodule", mode: Full, script: `git clone -q . "$extra.module"; (cd "$extra.module"; git checkout -q -b x; echo m >m; git add m; git commit -qm m)
git -c protocol.file.allow=always submodule add -q "$extra.module" 'sub module'; git commit -qm module; echo dirty >>'sub module/m'`},
	{name: "export-ignore", script: `printf 'secret export-ignore\n*.sub export-subst\n' >.gitattributes; echo kept >secret; echo '$Format:%H$' >a.sub; git add -A .gitattributes secret a.sub; git commit -qm attributes`},
	{name: "nested ignored", script: `mkdir -p nest.d/b/c; printf 'out/\n*.tmp\n' >nest.d/.gitignore; mkdir -p nest.d/out/deep; echo x >nest.d/out/deep/f; echo x >nest.d/b/x.tmp; printf '!x.tmp\n' >nest.d/b/.gitignore
git add -A nest.d; git commit -qm nested; echo y >nest.d/b/c/y.tmp`},
	{name: "whole history", mode: Full},
}

// names are generators of odd names; contents of odd contents.
var names = map[string]*rapid.Generator[string]{
	"spaces":         rapid.StringMatching(`[ab]{1,3} [ab]{0,3} `),
	"quotes":         rapid.StringMatching(`["'\\$]{1,4}[a-c]{0,2}`),
	"newline":        rapid.StringMatching(`[ab]\n[ab]`),
	"unicode":        rapid.StringMatching(`[äé日本語]{1,6}`),
	"no utf-8":       rapid.Custom(func(t *rapid.T) string { return "\xff" + rapid.StringMatching(`[a-c]{1,4}`).Draw(t, "name") }),
	"leading dash":   rapid.StringMatching(`-[a-z-]{1,6}`),
	"255 bytes":      rapid.StringMatching(`[a-z]{255}`),
	"deep":           rapid.StringMatching(`d[0-3]/d[0-3]/d[0-3]/[a-d]`),
	"glob and colon": rapid.StringMatching(`:[(*?!\[]{1,3}[a-c]`),
	"ordinary":       rapid.StringMatching(`[a-m]{1,8}`),
}

var contents = map[string]*rapid.Generator[string]{
	"empty":  rapid.Just(""),
	"text":   rapid.StringMatching(`([a-c]{0,5}\n){1,6}`),
	"no end": rapid.StringMatching(`([a-c]{0,5}\n){0,3}[a-c]`),
	"crlf":   rapid.StringMatching(`([a-c]{0,5}\r\n){1,4}([a-c]\n)?`),
	"binary": rapid.Custom(func(t *rapid.T) string {
		return "\x00" + string(rapid.SliceOfN(rapid.Byte(), 1, 400).Draw(t, "bytes"))
	}),
}

// tally counts what was met.
type tally map[string]int

func (c tally) draw(t *rapid.T, kind string, from map[string]*rapid.Generator[string]) string {
	class := rapid.SampledFrom(slices.Sorted(maps.Keys(from))).Draw(t, kind)
	c[kind+": "+class]++
	return from[class].Draw(t, class)
}

// file is a file, link or whatever takes a name's place.
func (c tally) file(t *rapid.T, dir, name string) {
	path := filepath.Join(dir, name)
	if os.MkdirAll(filepath.Dir(path), 0o755) != nil {
		return // below a file: no such path here
	}
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		return
	}
	_ = os.Remove(path)
	mode := os.FileMode(0o644)
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	case 0:
		c["dangling symlink"]++
		_ = os.Symlink("no/such", path)
		return
	case 1:
		c["symlink"]++
		_ = os.Symlink(".", path)
		return
	case 2:
		c["executable"]++
		mode = 0o755
	}
	_ = os.WriteFile(path, []byte(c.draw(t, "content", contents)), mode)
}

// work changes files of a tree, as somebody might who works there.
func (c tally) work(t *rapid.T, dir, side string, known []string) {
	for range rapid.IntRange(1, 6).Draw(t, side+" edits") {
		op := rapid.SampledFrom([]string{"new file", "change", "change", "deletion", "rename", "mode", "file for directory"}).Draw(t, "edit")
		c[side+": "+op]++
		name := c.draw(t, "name", names)
		if op != "new file" && len(known) > 0 {
			name = rapid.SampledFrom(known).Draw(t, "file")
		}
		path := filepath.Join(dir, name)
		switch op {
		case "new file", "change":
			c.file(t, dir, name)
		case "deletion":
			_ = os.Remove(path)
		case "rename":
			_ = os.Rename(path, path[:len(path)-1])
		case "mode":
			if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
				_ = os.Chmod(path, info.Mode()^0o111)
			}
		case "file for directory":
			top, _, _ := strings.Cut(name, "/")
			if top != name {
				_ = os.RemoveAll(filepath.Join(dir, top))
				c.file(t, dir, top)
			}
		}
	}
}

func TestRepositoriesComeHomeAsTheyWent(t *testing.T) {
	checks := 3 * len(shapes)
	if testing.Short() {
		checks = 5 * 2 * len(shapes) // rapid does a fifth of them
	}
	if err := flag.Set("rapid.checks", fmt.Sprint(checks)); err != nil {
		t.Fatal(err)
	}
	met, n := tally{}, 0
	rapid.Check(t, func(rt *rapid.T) {
		shape := shapes[n%len(shapes)]
		big := n == len(shapes) && !testing.Short()
		n++
		met["repository: "+shape.name]++
		trip(t, rt, met, shape.script, shape.mode, shape.below, big)
	})
	report(t, met)
}

// report prints how often each class was met; none may be missing.
func report(t *testing.T, met tally) {
	for _, s := range shapes {
		met["repository: "+s.name] += 0
	}
	for kind, classes := range map[string]map[string]*rapid.Generator[string]{"name": names, "content": contents} {
		for class := range classes {
			met[kind+": "+class] += 0
		}
	}
	for _, class := range []string{"symlink", "dangling symlink", "executable", "host: rename", "host: deletion", "guest: rename", "guest: deletion",
		"guest: change", "guest: mode", "guest: file for directory", "guest commits", "untracked brought in", "dirty tree", "clean clone and the same edits"} {
		met[class] += 0
	}
	if !testing.Short() {
		met["100 MB"] += 0
	}
	for _, class := range slices.Sorted(maps.Keys(met)) {
		t.Logf("%4d × %s", met[class], class)
		if met[class] == 0 {
			t.Errorf("no repository with: %s", class)
		}
	}
}

// trip takes one repository into a guest and its changes home again.
func trip(t *testing.T, rt *rapid.T, met tally, script, mode, below string, big bool) {
	r := newRig(t)
	top := filepath.Dir(filepath.Dir(r.home))
	defer os.RemoveAll(top)
	var known []string
	for range rapid.IntRange(3, 10).Draw(rt, "files") {
		known = append(known, met.draw(rt, "name", names))
		met.file(rt, r.repo, known[len(known)-1])
	}
	if big {
		met["100 MB"]++
		r.onHost("head -c 100M /dev/urandom >large; git -c core.bigFileThreshold=1m add large")
	}
	r.write("always", "1\n")
	r.commit("one")
	met.work(rt, r.repo, "host", known)
	r.write("always", "2\n")
	r.commit("two")
	if script != "" {
		r.repo = strings.TrimSpace(r.onHost("extra=$(dirname $PWD)/extra\n{ "+script+"\n} >&2\npwd >"+top+"/where") + string(must(os.ReadFile(top+"/where"))))
	}
	if rapid.Bool().Draw(rt, "dirty") {
		met["dirty tree"]++
		met.work(rt, r.repo, "host", known)
	}
	o := Options{Mode: mode, Untracked: rapid.Bool().Draw(rt, "untracked")}
	if o.Untracked {
		met["untracked brought in"]++
	}
	r.mustDeliver(o)
	clone := r.clone(o)
	sameTree(r, clone.repo, "as it came in")
	if !o.Untracked {
		r.onHost("git clean -qfd") // they would be in the way of what the guest calls the same
	}

	met.work(rt, filepath.Join(r.path, below), "guest", known)
	if big {
		r.there("printf x | dd of=large bs=1 seek=50000000 conv=notrunc status=none")
	}
	if rapid.Bool().Draw(rt, "commit") {
		met["guest commits"]++
		r.there("git add -A . ':!sub module' 2>/dev/null || git add -A --sparse .; git commit -qm guest --allow-empty")
		met.work(rt, filepath.Join(r.path, below), "guest", known)
	}
	w := r.work("")
	text := r.patch(w)
	if text != "" {
		writeFile(t, top+"/work.patch", text)
		clone.onHost("git apply --whitespace=nowarn " + top + "/work.patch")
	}
	met["clean clone and the same edits"]++
	r.there("git clean -qfdX") // what git ignores stays in the guest
	sameTree(r, clone.repo, "the patch on a clean clone with the same edits")
	r.apply(w)
	applied := r.clone(Options{Untracked: true})
	sameTree(r, applied.repo, "applied to where it came from")
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// clone is a new repository with the host's files that go into a guest.
func (r *rig) clone(o Options) *rig {
	r.Helper()
	c := *r
	c.repo = must(os.MkdirTemp(filepath.Dir(r.home), "clone"))
	list := "git ls-files -z --recurse-submodules"
	if o.Untracked {
		list = "{ git ls-files -z --recurse-submodules; git ls-files -z --others --exclude-standard; }"
	}
	r.onHost(list + ` | sort -zu | while IFS= read -rd '' f; do [ ! -e "$f" ] && [ ! -L "$f" ] || [ -d "$f" ] && [ ! -L "$f" ] || printf '%s\0' "$f"; done |
tar -c --null --verbatim-files-from -T - | tar -xp -C ` + c.repo + "; git init -q " + c.repo)
	return &c
}

// sameTree compares the guest's files with a tree of the host's.
func sameTree(r *rig, host, what string) {
	r.Helper()
	want, got := listing(r.T, host), listing(r.T, r.path)
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			fmt.Fprintf(&b, "%q is %q in the guest, %q on the host\n", name, got[name], want[name])
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			fmt.Fprintf(&b, "%q is in the guest alone\n", name)
		}
	}
	if b.Len() > 0 {
		r.Fatalf("%s:\n%s", what, b.String())
	}
}
