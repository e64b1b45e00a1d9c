package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"banger/test/world"
)

// example is one command of a document and what the document says that it prints.
type example struct {
	command string
	prints  []string
}

// notRun stands in the line above a block that no test can run: it would not end, or
// needs what only a person has.
const notRun = "<!-- not run: "

// examples are the commands of a document, in their order.
func examples(text string) (all []example) {
	before, inside := "", false
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case inside && line == "```":
			inside = false
		case line == "```console" && !strings.HasPrefix(before, notRun):
			inside = true
		case inside && strings.HasPrefix(line, "$ "):
			all = append(all, example{command: line[2:]})
		case inside && len(all) > 0:
			last := &all[len(all)-1]
			last.prints = append(last.prints, line)
		}
		before = line
	}
	return all
}

// varies are lines of an output that are not the same twice: with figures, messages
// of the stages, the heads of tables, whose columns have other widths.
var varies = regexp.MustCompile(`[0-9]|^banger: |^hint: |^[A-Z]+ {2,}[A-Z]|^$`)

func TestExamplesOfADocument(t *testing.T) {
	got := examples("text\n```console\n$ a # why\nout\n$ b\n```\n$ no\n" + notRun + "it stays -->\n```console\n$ c\n```\n```text\n$ d\n```\n")
	want := []example{{"a # why", []string{"out"}}, {"b", nil}}
	if !slices.EqualFunc(got, want, func(a, b example) bool { return a.command == b.command && slices.Equal(a.prints, b.prints) }) {
		t.Errorf("got %q", got)
	}
	for line, want := range map[string]bool{"42": true, "banger: ready": true, "NAME   STATE": true, "?? NOTES": false, "+note": false} {
		if varies.MatchString(line) != want {
			t.Errorf("%q varies is %v", line, !want)
		}
	}
}

// follower is who follows the documents: a home with a repository in ~/src/app, and
// clients that take its ~/.ssh for theirs, which OpenSSH finds by the uid.
const follower = `
ssh() { command ssh -F ~/.ssh/config "$@"; }
scp() { command scp -F ~/.ssh/config "$@"; }
curl() { command curl -sS -o /dev/null --retry 40 --retry-delay 1 --retry-all-errors "${@//127.77.0.2/$(banger vm show devbox | sed -n 's/.*"host_address": "\(.*\)".*/\1/p')}"; }
export GIT_CONFIG_NOSYSTEM=1 GIT_SSH_COMMAND="ssh -F $HOME/.ssh/config" RSYNC_RSH="ssh -F $HOME/.ssh/config"
rm -rf ~/src ~/.ssh; mkdir -p ~/src/app/src ~/.ssh; cd ~/src/app
git init -q -b main; git config user.name P; git config user.email p@example.com
printf 'test:\n\techo passed >result\n' >Makefile; printf 'all:\n\t@echo built\n' >src/Makefile
git add -A; git commit -qm one; printf '# changed\n' >>Makefile
`

// allDocuments has those followed too that take a minute more; `make documents` sets it.
const allDocuments = "BANGER_TEST_DOCUMENTS"

// TestCommandsOfTheDocumentsWork runs each command of each document, as the one
// before left things. before is what a document takes for granted.
func TestCommandsOfTheDocumentsWork(t *testing.T) {
	shared.configure(t, "[vm_defaults]\nmemory_mib = 512\nvcpu = 1\n")
	before := strings.Fields(shared.must(t, "image", "list", "-q"))
	t.Cleanup(func() {
		shared.Clear()
		for _, id := range strings.Fields(shared.must(t, "image", "list", "-q")) {
			if !slices.Contains(before, id) {
				shared.must(t, "image", "delete", id)
			}
		}
	})
	const devbox = "banger run --name devbox -d . 2>&1"
	for _, d := range []struct {
		file, before string
		long         bool
	}{
		{"README.md", "", false},
		{"docs/workspaces.md", "", false},
		{"docs/network.md", "", false},
		{"docs/ssh.md", devbox + "; banger cp src devbox:/root/src", false},
		{"docs/forks.md", "", true},
		{"docs/images.md", "mkdir -p ~/devbox-home; touch ~/devbox-home/note; cp $(ls ~/.local/state/banger/images/*/rootfs.ext4 | head -1) .", true},
		{"docs/troubleshooting.md", devbox, true},
	} {
		t.Run(filepath.Base(d.file), func(t *testing.T) {
			if d.long && os.Getenv(allDocuments) == "" {
				t.Skip(allDocuments + " is not set; make documents sets it")
			}
			shared.followsDocument(t, d.file, d.before)
		})
	}
}

// configure gives an installation another configuration for a test.
func (w home) configure(t *testing.T, text string) {
	t.Helper()
	file := filepath.Join(w.Home, ".config", "banger", "config.toml")
	old, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if old == nil {
			os.Remove(file)
		} else if err := os.WriteFile(file, old, 0o600); err != nil {
			t.Error(err)
		}
	})
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// cut stands in a line of its own before what each command prints.
const cut = "--- the next command ---"

// missing are lines of a document, of those that do not vary, that its command did
// not print in their order.
func (e example) missing(printed string) (all []string) {
	left := strings.Split(printed, "\n")
	for _, line := range e.prints {
		if varies.MatchString(line) {
			continue
		}
		at := slices.Index(left, line)
		if at < 0 {
			all = append(all, line)
		}
		left = left[at+1:]
	}
	return all
}

func TestLinesAreMissedInTheirOrder(t *testing.T) {
	e := example{"a", []string{"one", "with 1", "two", "two", "one"}}
	for printed, want := range map[string][]string{
		"one\nmore\ntwo\ntwo\none\n": nil,
		"two\none\ntwo\none\n":       {"two"},
		"":                           {"one", "two", "two", "one"},
	} {
		if got := e.missing(printed); !slices.Equal(got, want) {
			t.Errorf("in %q are missing %q, want %q", printed, got, want)
		}
	}
}

func (w home) followsDocument(t *testing.T, file, before string) {
	text, err := os.ReadFile(filepath.Join("..", "..", file))
	if err != nil {
		t.Fatal(err)
	}
	w.Clear()
	all := examples(string(text))
	script := follower + before + "\n"
	for _, s := range all {
		script += "printf '\\n" + cut + "\\n'\n{ " + s.command + "\n} </dev/null || { echo \"status $? of the command above\" >&2; exit 1; }\n"
	}
	cmd := w.Command() // bounded
	cmd.Path, cmd.Args = "/bin/bash", []string{"bash", "-vc", script}
	cmd.Env = append(cmd.Env, "PATH="+filepath.Dir(w.Bin)+":"+os.Getenv("PATH"))
	r := world.Finish(cmd)
	if r.Status != 0 {
		t.Fatalf("a command of %s fails, the last one here:\n%s\n%s", file, tail(r.Stdout), tail(r.Stderr))
	}
	printed := strings.Split(r.Stdout, "\n"+cut+"\n")[1:]
	for i, s := range all {
		for _, line := range s.missing(printed[i]) {
			t.Errorf("%s: %q does not print %q, but:\n%s", file, s.command, line, printed[i])
		}
	}
}

// tail is the end of a long text.
func tail(s string) string { return s[max(0, len(s)-3000):] }
