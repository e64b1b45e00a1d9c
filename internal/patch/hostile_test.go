package patch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
)

// hostilePaths are refused wherever they stand in a list of changes.
var hostilePaths = []string{
	"", "/etc/passwd", "//x", "a//b", "a/", "..", "../x", "a/../../x", "a/..", "./x", "a/./b", ".", "... /../x",
	".git/config", ".git/hooks/post-checkout", "a/.git/config", ".git", "sub/.git",
	".GIT/config", ".Git/x", ".giT",
	"git~1", "GIT~1/config", "git~2", "a/git~1/x",
	".git::$INDEX_ALLOCATION/config", ".git:stream", ".git ", ".git.", ".git. . /config", ".git...", ".git .:x",
	".g\u200cit/config", ".\u200dgit", ".gi\u200et", ".git\ufeff", "\u206a.git", ".g\u202eit", ".GI\u200cT/hooks/x",
	".g\u00adit/config", ".\u200bgit", ".gi\u2060t", ".git\ufe0f", ".g\U000e0100it", ".g\U000e0001it", ".\u034fgit", ".git\u180e/x", "\u3164.git", ".g\u061cit", ".g\U0001d173it", ".\u2065git", ".\u00ad./x",
	".git\u200c ", ".\u200c./x", "\u200c", ".. /x", "..\u200f/x",
	`..\x`, `a\..\..\x`, `.git\config`, `a\.git\config`, `a/b\.GIT`, `\x\..`, `a\git~1`, `a\.git::$DATA`,
	strings.Repeat("n", 256), "a\x00b",
	".banger-apply-x/old/f", ".BANGER-APPLY-x", ".banger\u200c-apply-x/y",
}

func TestPathsThatAreHostileAreRefused(t *testing.T) {
	for _, p := range hostilePaths {
		if err := CheckPath(p); banger.CodeOf(err) != banger.Conflict {
			t.Errorf("%q: %v", p, err)
		}
	}
}

func TestPathsThatAreOnlyOddAreNot(t *testing.T) {
	for _, p := range []string{
		".gitignore", ".gitattributes", ".gitmodules", ".github/workflows/x.yml", "git", "git~", "git~12", "agit~1", ".git-x", ".gitx/y", "a.git/config", "x.git",
		"...", "..a", "a..", "-rf", "--", " ", "a ", "a.", "a:b", `a\b`, `back\`, "new\nline", "tab\t", `"`, "'", "\xff\xfe", "日本語", "a\u200cb", "e\u0301", "\u2764\ufe0f", "co\u00adop", "\u1100\u1160",
		strings.Repeat("n", 255), strings.Repeat("a/", 500) + "a", "a/.banger-apply-x", "*", "?", "$(rm -rf)", "CON", "~", "~root",
	} {
		if err := CheckPath(p); err != nil {
			t.Errorf("%q: %v", p, err)
		}
	}
}

func TestHostileChangesAreRefusedWhole(t *testing.T) {
	c := contents{}
	file := func(path, text string) Change { return Change{Path: path, New: c.file(text)} }
	cases := map[string][]Change{
		"a link and a file below it":               {file("a", "-> ../canary"), file("a/file", "mine")},
		"a link and a file far below it":           {file("a", "-> ../canary"), file("a/dir/file", "mine")},
		"a file and a file below it":               {file("a", "x"), file("a/file", "mine")},
		"a path twice":                             {file("a", "-> ../canary"), file("a", "mine")},
		"a submodule":                              {{Path: "sub", New: File{Repository, strings.Repeat("a", 40)}}},
		"a submodule changed":                      {{Path: "sub", Old: File{Repository, strings.Repeat("a", 40)}, New: File{Repository, strings.Repeat("b", 40)}}},
		"a submodule in place of a file":           {{Path: "good", Old: c.file("good"), New: File{Repository, strings.Repeat("b", 40)}}},
		"where submodules come from":               {file(".gitmodules", "[submodule]")},
		"where submodules come from, as a link":    {file(".gitmodules", "-> x")},
		"where submodules come from, other case":   {file("a/.GitModules", "x")},
		"where submodules come from, short":        {file("GITMOD~1", "x")},
		"where submodules come from, other short":  {file("gi7eba~3", "x")},
		"where submodules come from, invisible":    {file(".gitmod\u200cules", "x")},
		"where submodules come from, stream":       {file(".gitmodules:x", "x")},
		"through a link of the host":               {file("out/file", "mine")},
		"through a link of the host, new":          {file("out/new", "mine")},
		"through a link of the host, to a file":    {{Path: "out/file", Old: c.file("outside"), New: c.file("mine")}},
		"removing through a link of the host":      {{Path: "out/file", Old: c.file("outside")}},
		"through a link of the host that is to go": {{Path: "out", Old: c.file("-> elsewhere")}, file("out/file", "mine")},
		"through a file":                           {file("good/x", "mine")},
		"through a link with a long target":        {file("long", "-> "+strings.Repeat("x", 5000))},
		"a link without a target":                  {file("nowhere", "-> ")},
	}
	for _, p := range hostilePaths {
		cases["path "+p] = []Change{file("innocent", "x"), file(p, "mine")}
		cases["path removed "+p] = []Change{{Path: p, Old: c.file("[core]")}}
		cases["path as a link "+p] = []Change{file(p, "-> ../canary")}
	}
	for what, changes := range cases {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, files{"good": "good", "out": "-> ../canary", "dir/a": "1"})
			for id, content := range c {
				r.contents[id] = content
			}
			was := read(t, r.root)
			if _, err := r.apply(append([]Change{file("zz", "innocent")}, changes...)); err == nil {
				t.Error("they were applied")
			}
			if now := read(t, r.root); now != was {
				t.Errorf("the tree is\n%s\nwas\n%s", now, was)
			}
			r.holds(files{"good": "good", "out": "-> ../canary", "dir/a": "1"})
		})
	}
}

// A link that a guest makes in place of a directory does not carry what comes
// after it elsewhere, and neither does one that goes.
func TestLinksThatComeAndGoLeadNowhere(t *testing.T) {
	was := files{"dir/a": "1", "link": "-> ../canary"}
	now := files{"dir": "-> ../canary", "link/a": "1", "link/file": "mine"}
	r := newRig(t, was)
	if _, err := r.apply(r.contents.between(was, now)); err != nil {
		t.Fatal(err)
	}
	r.holds(now)
	if info, err := os.Lstat(filepath.Join(r.root, "link")); err != nil || !info.IsDir() {
		t.Errorf("%v, %v", info, err)
	}
}

// On a file system that folds case, two names may be one file: whoever comes
// second finds it there. Here a directory is made to fold, where the kernel can.
func TestNamesThatAreOneOnTheHostAreRefused(t *testing.T) {
	r := newRig(t, files{"readme": "host's own"})
	// What such a file system does to the path README is what a link does here.
	must(t, os.Link(r.root+"/readme", r.root+"/README"))
	if _, err := r.apply([]Change{{Path: "README", New: r.contents.file("guest's")}}); banger.CodeOf(err) != banger.Conflict {
		t.Errorf("%v", err)
	}
	r.holds(files{"readme": "host's own", "README": "host's own"})
}

func FuzzApply(f *testing.F) {
	for _, p := range hostilePaths {
		f.Add(p, "-> ../canary", "a", "mine")
		f.Add("a", "-> ../canary", p, "mine")
	}
	f.Add("dir", "-> ../canary", "dir/file", "mine")
	f.Add("out", "now a file", "out/x", "-> x")
	host := files{"good": "good", "out": "-> ../canary", "dir/a": "1"}
	f.Fuzz(func(t *testing.T, path1, text1, path2, text2 string) {
		r := newRig(t, host)
		changes := []Change{{Path: path1, New: r.contents.file(text1)}, {Path: path2, New: r.contents.file(text2)}}
		for i, c := range changes {
			if text, was := host[c.Path]; was {
				changes[i].Old = r.contents.file(text)
			}
		}
		was := read(t, r.root)
		if _, err := r.apply(changes); err == nil { // r.apply looks at what lies outside
			return
		}
		if now := read(t, r.root); now != was {
			t.Errorf("refused, but the tree is\n%s\nwas\n%s", now, was)
		}
	})
}
