package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/test/world"
)

// script runs bash in a directory of the host's, with banger on its PATH.
func (w home) script(t *testing.T, dir, script string) string {
	t.Helper()
	cmd := exec.Command("bash", "-euc", script)
	cmd.Dir = dir
	cmd.Env = append(w.Env(), "PATH="+filepath.Dir(w.Bin)+":"+os.Getenv("PATH"), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=t", "GIT_AUTHOR_EMAIL=t@example.com", "GIT_COMMITTER_NAME=t", "GIT_COMMITTER_EMAIL=t@example.com")
	r := world.Finish(cmd)
	if r.Status != 0 {
		t.Fatalf("%s: status %d\n%s%s", script, r.Status, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// treeOf lists a work tree by content and mode, on either side.
const treeOf = `find . -name .git -prune -o -type f -printf '%m ' -exec sha256sum -z {} \; -o -type l -printf '%p -> %l\0' | tr '\0' '\n' | sed 's/^.\(.\)../\1/' | sort`

// dirtyRepository is one with changes that are in no commit, beside a clean clone
// with the same changes.
func (w home) dirtyRepository(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	w.script(t, dir, `git init -q -b main repo; cd repo; seq 100 >numbers; mkdir d; echo 1 >d/gone; ln -s numbers link; printf 'a\r\nb\n' >crlf; git add -A; git commit -qm one
git clone -q . ../clone
for d in . ../clone; do (cd $d; echo host >>numbers; rm d/gone; echo new >added; chmod +x crlf; git add added); done`)
	return dir
}

const guestWork = `set -e; cd /root/repo; git config user.email g@example.com; git config user.name g
sed -i s/^50$/fifty/ numbers; git commit -qam fifty; echo loose >>added; head -c 5000 /dev/urandom >binary; ln -sf crlf link; mkdir -p e/f; : >"e/f/an empty
one"; chmod -x crlf; git add e`

func TestWorkComesHome(t *testing.T) {
	dir := shared.dirtyRepository(t)
	t.Cleanup(func() { shared.Banger("rm", "-f", "out") })
	shared.script(t, dir, "cd repo; banger vm run -d --name out --memory 512 .")
	shared.must(t, "exec", "out", "--", "sh", "-c", guestWork)
	shared.must(t, "stop", "out")
	if r := shared.Banger("vm", "workspace", "export", "out"); r.Status != 1 || r.Stdout != "" || !strings.Contains(r.Stderr, "banger vm start out") {
		t.Errorf("of a stopped VM: status %d, %q, %s", r.Status, r.Stdout, r.Stderr)
	}
	shared.must(t, "start", "out")
	shared.must(t, "vm", "workspace", "export", "out", "-o", dir+"/work.patch")
	patch := must(os.ReadFile(dir + "/work.patch"))(t)
	if out := shared.must(t, "vm", "workspace", "export", "out"); out != strings.TrimSpace(string(patch)) {
		t.Error("stdout is not what was written to the file")
	}
	if strings.Contains(string(patch), "host") || strings.Contains(string(patch), "d/gone") {
		t.Errorf("the patch holds what the host had:\n%s", patch)
	}
	want := shared.must(t, "exec", "out", "--", "sh", "-c", treeOf)
	for _, where := range []string{"clone", "repo"} {
		shared.script(t, dir+"/"+where, "git apply --check ../work.patch")
	}
	shared.script(t, dir+"/clone", "git apply ../work.patch")
	if got := strings.TrimSpace(shared.script(t, dir+"/clone", treeOf)); got != want {
		t.Errorf("a clean clone with the same changes becomes\n%s\nwant\n%s", got, want)
	}
	index := shared.script(t, dir+"/repo", "sha256sum .git/index; git log --all --format=%H")
	shared.script(t, dir+"/repo", "banger vm workspace export . --apply")
	if got := strings.TrimSpace(shared.script(t, dir+"/repo", treeOf)); got != want {
		t.Errorf("where it came from becomes\n%s\nwant\n%s", got, want)
	}
	if now := shared.script(t, dir+"/repo", "sha256sum .git/index; git log --all --format=%H"); now != index {
		t.Errorf("the index or the branches changed:\n%s%s", index, now)
	}
	shared.script(t, dir+"/repo", "echo mine >numbers")
	if r := shared.Banger("vm", "workspace", "export", "out", "--apply"); r.Status != 1 || !strings.Contains(r.Stderr, `"numbers"`) {
		t.Errorf("over a changed file: status %d, %s", r.Status, r.Stderr)
	}
	if r := shared.Banger("vm", "workspace", "export", "out", "--format", "mbox"); r.Status != 1 || r.Stdout != "" || !strings.Contains(r.Stderr, "--format patch") {
		t.Errorf("mails of a dirty tree: status %d, %q, %s", r.Status, r.Stdout, r.Stderr)
	}
}

// must unwraps a result, or ends the test.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestEachForkHasItsOwnWork(t *testing.T) {
	dir := shared.dirtyRepository(t)
	t.Cleanup(func() { shared.Banger("rm", "-f", "forked", "try-1", "try-2", "try-3") })
	shared.script(t, dir, "cd repo; banger vm run -d --name forked --memory 512 .; banger exec forked -- sh -c 'echo before >before'")
	r := shared.Banger("fork", "-n", "3", "--name", "try", "--json", "forked", "--", "sh", "-c",
		"n=$(hostname | tr -dc 0-9); seq $n | while read i; do echo $n >file$i; done; touch numbers; echo elsewhere >/tmp/elsewhere")
	var forks struct {
		Results []struct {
			Name  string `json:"name"`
			Files *int   `json:"files_changed"`
		} `json:"results"`
	}
	if err := json.Unmarshal([]byte(r.Stdout), &forks); err != nil || r.Status != 0 || len(forks.Results) != 3 {
		t.Fatalf("status %d, %v\n%s%s", r.Status, err, r.Stdout, r.Stderr)
	}
	for i, f := range forks.Results {
		if f.Files == nil || *f.Files != i+1 {
			t.Errorf("%s: %v files changed, want %d", f.Name, f.Files, i+1)
		}
		patch := shared.must(t, "vm", "workspace", "export", f.Name)
		if n := strings.Count(patch, "diff --git"); n != i+2 || !strings.Contains(patch, fmt.Sprintf("\n+%d", i+1)) {
			t.Errorf("%s: its patch has %d files, want %d\n%s", f.Name, n, i+2, patch)
		}
	}
}

func TestExportThatIsKilledLeavesNothing(t *testing.T) {
	dir := shared.dirtyRepository(t)
	t.Cleanup(func() { shared.Banger("rm", "-f", "killed") })
	shared.script(t, dir, "cd repo; banger vm run -d --name killed --memory 512 .")
	shared.must(t, "exec", "killed", "--", "sh", "-c", "for i in $(seq 300); do seq $i 400 >f$i; done; head -c 5000000 /dev/urandom >big")
	out := filepath.Join(dir, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	shared.must(t, "vm", "workspace", "export", "killed", "-o", filepath.Join(out, "whole"))
	took := time.Since(began)
	whole := must(os.ReadFile(filepath.Join(out, "whole")))(t)
	for i := range 8 {
		file := filepath.Join(out, fmt.Sprint(i))
		cmd := shared.Command("vm", "workspace", "export", "killed", "-o", file)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(took*time.Duration(i+1)/8, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		timer.Stop()
		if got, err := os.ReadFile(file); err == nil && string(got) != string(whole) {
			t.Errorf("killed after %d eighths: the file has %d bytes of %d", i+1, len(got), len(whole))
		}
	}
	for _, e := range must(os.ReadDir(out))(t) {
		if name := e.Name(); name != "whole" && len(name) > 1 {
			t.Errorf("%s was left", name)
		}
	}
	// The next one removes what the killed ones have left, on both sides.
	shared.must(t, "vm", "workspace", "export", "killed", "-o", filepath.Join(out, "whole"))
	if left, _ := filepath.Glob(shared.Home + "/.cache/banger/exports/*"); len(left) > 0 {
		t.Errorf("these were left: %v", left)
	}
	eventually(t, "the guest's halves have ended", func() bool {
		return shared.Banger("exec", "killed", "--", "sh", "-c", "! ls -d .git/banger/export.*").Status == 0
	})
}

func TestGitFetchesThroughExec(t *testing.T) {
	dir := shared.dirtyRepository(t)
	t.Cleanup(func() { shared.Banger("rm", "-f", "fetched") })
	shared.script(t, dir, "cd repo; banger vm run -d --name fetched --memory 512 .")
	// What the guest configures must not run on the host.
	shared.must(t, "exec", "fetched", "--", "sh", "-c", guestWork+`
mkdir -p .git/hooks; for h in pre-receive post-checkout reference-transaction pre-auto-gc; do printf '#!/bin/sh\ntouch "$(git rev-parse --show-toplevel)/ran-hook"\n' >.git/hooks/$h; chmod +x .git/hooks/$h; done
git config core.fsmonitor 'touch ran-monitor'; git config uploadpack.packObjectsHook 'touch ran-pack'; git config core.sshCommand 'touch ran-ssh'`)
	shared.script(t, dir+"/repo", `git -c protocol.ext.allow=always fetch -q "ext::banger exec -i fetched -- git upload-pack /root/repo" main:from-vm`)
	if got := shared.script(t, dir+"/repo", "git log --format=%s from-vm; git show from-vm:numbers | sed -n 50p"); got != "fifty\none\nfifty\n" {
		t.Errorf("fetched\n%s", got)
	}
	if ran, _ := filepath.Glob(dir + "/*/ran-*"); len(ran) > 0 {
		t.Errorf("these ran on the host: %v", ran)
	}
}

// kinds are repositories of many kinds, each made on the host by one script and
// worked on in the guest by another.
var kinds = []struct{ name, flags, host, guest string }{
	{"odd names", "--include-untracked", `for n in 'a b ' '"q"' "it's" '$x' $'new\nline' -dash -- ä日 $'\xff' ':(top)' '*' "$(printf %0255d 0)"; do echo "$n" >"./$n"; done; git add -A; git commit -qm x`,
		`for f in * ; do [ -L "./$f" ] || echo more >>"./$f"; done; mv ./-- moved; rm ./-dash; echo new >$(printf %0254d 1)`},
	{"links, modes, empty", "", `ln -s nowhere dangling; ln -s . self; : >empty; echo '#!/bin/sh' >run; chmod +x run; git add -A; git commit -qm x`,
		`ln -sfn empty self; rm dangling; echo file >dangling; chmod -x run; chmod +x empty; mkdir d; ln -s ../run d/l`},
	{"binary, crlf, rename", "", `head -c 300000 /dev/urandom >bin; printf 'a\r\nb\r\n' >crlf; seq 1000 >text; git add -A; git commit -qm x`,
		`printf x | dd of=bin bs=1 seek=1000 conv=notrunc status=none; mv text renamed; echo tail >>renamed; printf 'c\r\n' >>crlf; git add -A; git -c user.name=g -c user.email=g@g commit -qm y; rm crlf`},
	{"no commits", "", `rm -rf .git; git init -q -b main; echo x >x; git add -A`, `echo y >>x; echo z >z`},
	{"submodule", "--mode full", `git init -q ../mod; (cd ../mod; echo m >m; git add m; git commit -qm m); git -c protocol.file.allow=always submodule -q add ../mod sub; git commit -qm x`, `echo y >>numbers; echo z >z`},
	{"ignored and export-ignore", "", `printf '*.o\nout/\n' >.gitignore; echo 'numbers export-ignore' >.gitattributes; git add -A; git commit -qm x; mkdir -p d/out/e; echo 1 >d/out/e/f; echo 1 >a.o`, `echo 2 >b.o; mkdir out; echo x >out/x; echo y >>numbers; rm b.o out/x; rmdir out`},
	{"detached, directories for files", "", `mkdir dir; echo 1 >dir/f; git add -A; git commit -qm x; git checkout -q --detach`, `rm -r dir; echo now >dir; rm added; mkdir added; echo in >added/f`},
}

func TestRepositoriesComeHomeFromARealGuest(t *testing.T) {
	shared.start(t, "kinds")
	for i, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			dir, at := shared.dirtyRepository(t), fmt.Sprintf("/root/r%d", i)
			shared.script(t, dir+"/repo", kind.host)
			shared.script(t, dir+"/repo", fmt.Sprintf("banger vm workspace prepare kinds . --guest-path %s %s; mkdir ../same; git ls-files -z --recurse-submodules | while IFS= read -rd '' f; do [ ! -e \"$f\" ] && [ ! -L \"$f\" ] || printf '%%s\\0' \"$f\"; done | tar c --null --verbatim-files-from -T - | tar xp -C ../same", at, kind.flags))
			same := func(where, what string) {
				t.Helper()
				got := strings.TrimSpace(shared.script(t, where, treeOf))
				if want := shared.must(t, "exec", "kinds", "-w", at, "--", "sh", "-c", treeOf); got != want {
					t.Errorf("%s: the host has\n%s\nthe guest\n%s", what, got, want)
				}
			}
			same(dir+"/same", "brought in")
			shared.must(t, "exec", "kinds", "-w", at, "--", "sh", "-ec", kind.guest)
			shared.must(t, "vm", "workspace", "export", "kinds", "-o", dir+"/work.patch")
			shared.script(t, dir+"/same", "git apply ../work.patch")
			same(dir+"/same", "the patch, on the same tree")
			shared.must(t, "vm", "workspace", "export", "kinds", "--apply")
			shared.script(t, dir+"/repo", "git clean -qfdX")
			same(dir+"/repo", "applied to where it came from")
		})
	}
}
