package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"banger/test/world"
)

// repository makes one on the host and gives its path.
func repository(t *testing.T, script string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "project")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash", "-ec", "git init -q -b main; git config user.name P; git config user.email p@example.com\n"+script)
	cmd.Dir = dir
	cmd.Env = append(shared.Env(), "GIT_CONFIG_NOSYSTEM=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

const oddRepository = `
echo first >README; mkdir -p "sub/with space"; echo x >"sub/with space/$(printf 'new\nline')"
ln -s README link; ln -s nowhere dangling; : >empty; printf '#!/bin/sh\necho ran\n' >run; chmod 755 run
head -c 100M /dev/zero | tr '\0' 'z' >large
git add -A; git commit -qm one; git tag v1
echo changed >README; rm empty; echo u >untracked`

// tree lists files with modes and sums, the same on both sides.
const tree = `find . -path ./.git -prune -o \( -type f -printf '%m %P\0' -o -type l -printf 'l %P %l\0' \) | sort -z | tr '\0' '|'
find . -path ./.git -prune -o -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum`

func TestRepositoryInAGuestIsAsOnTheHost(t *testing.T) {
	dir := repository(t, oddRepository)
	shared.must(t, "run", "-d", "--name", "workspace", "--memory", "512", "--include-untracked", dir)
	t.Cleanup(func() { shared.Banger("rm", "-f", "workspace") })
	cmd := exec.Command("bash", "-c", tree)
	cmd.Dir = dir
	host := world.Finish(cmd)
	if guest := shared.must(t, "exec", "workspace", "--", "bash", "-c", tree); guest != strings.TrimSpace(host.Stdout) {
		t.Errorf("the guest has\n%s, the host\n%s", guest, host.Stdout)
	}
	want := "M README\n D empty\n?? untracked"
	if got := shared.must(t, "exec", "workspace", "--", "git", "status", "--short"); got != want {
		t.Errorf("git status in the guest is %q, want %q", got, want)
	}
	if got := shared.must(t, "exec", "workspace", "--", "git", "fsck", "--no-dangling"); got != "" {
		t.Errorf("git fsck: %s", got)
	}

	// The daemon may end between prepare and exec.
	shared.must(t, "daemon", "stop", "--force")
	if got := shared.must(t, "exec", "-w", "sub", "workspace", "--", "pwd"); got != "/root/repo/sub" {
		t.Errorf("exec begins in %q", got)
	}
}

func TestPrepareThatIsKilledLeavesAVMThatWorks(t *testing.T) {
	dir := repository(t, oddRepository)
	shared.start(t, "cut-short")
	before := func() { shared.must(t, "exec", "cut-short", "--", "rm", "-rf", "/root/repo") }
	begun := func() bool { // the large file has, to come
		return shared.Banger("exec", "cut-short", "--", "test", "-s", "/root/repo/large").Status == 0
	}
	shared.amid(t, before, begun, func(cmd *exec.Cmd) (inTime bool) {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
		return shared.Banger("exec", "cut-short", "--", "test", "-e", "/root/repo/.git/banger/since").Status == 1
	}, "vm", "workspace", "prepare", "cut-short", dir)
	shared.must(t, "vm", "workspace", "prepare", "cut-short", dir)
	if got := shared.must(t, "exec", "cut-short", "--", "git", "status", "--short"); got != "M README\n D empty" {
		t.Errorf("git status in the guest is %q", got)
	}
}

func TestFilesOfTheOwnersHomeAreInEveryNewVM(t *testing.T) {
	t.Parallel()
	w := borrowedWorld(t, "synced")
	files := map[string]string{
		".config/banger/config.toml": "[[file_sync]]\nhost = \"~/.toolrc\"\nguest = \"~/.toolrc\"\n[[file_sync]]\nhost = \"~/.missing\"\nguest = \"~/x\"\n",
		".toolrc":                    "colour = yes\n",
	}
	for name, content := range files {
		path := filepath.Join(w.Home, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := w.Banger("run", "--rm", "--cold", "--memory", "512", "--", "sh", "-c", "cat /root/.toolrc; stat -c '%a %U:%G' /root/.toolrc")
	if r.Status != 0 || r.Stdout != "colour = yes\n600 root:root\n" || !strings.Contains(r.Stderr, "file_sync[1]") {
		t.Errorf("status %d, %q\n%s", r.Status, r.Stdout, r.Stderr)
	}
}

// standInMise says what it was asked to do; the real one needs a network.
const standInMise = `#!/bin/sh
case $1 in
trust) echo "trusted in $PWD" >>"$HOME/mise-log";;
install) echo "installed in $PWD${http_proxy:+ through $http_proxy}" | tee -a "$HOME/mise-log";;
exec) shift 2; MISE=yes exec "$@";;
esac
`

func TestToolsOfARepositoryAreInstalledByMise(t *testing.T) {
	t.Parallel()
	w := borrowedWorld(t, "tools")
	config := filepath.Join(w.Home, ".config/banger/config.toml")
	bin := filepath.Join(w.Home, "mise")
	for path, content := range map[string]string{config: "mise_bin = \"~/mise\"\ninherit_proxy = true\n", bin: standInMise} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir := repository(t, "echo '[tools]' >mise.toml; git add -A; git commit -qm one")
	viaProxy(t, w, "http://127.0.0.1:9", "run", "-d", "--cold", "--memory", "512", "--nat", "--name", "tools", dir)
	if got := w.must(t, "vm", "logs", "--source", "bootstrap", "tools"); got != "installed in /root/repo through http://host.vm:9" {
		t.Errorf("the bootstrap's log is %q", got)
	}
	if got := w.must(t, "exec", "tools", "--", "sh", "-c", "echo $MISE; sort -u /root/mise-log"); got != "yes\ninstalled in /root/repo through http://host.vm:9\ntrusted in /root/repo" {
		t.Errorf("mise was asked for %q", got)
	}

	// For another user, in the background of a shell, which has nothing to do here.
	if r := w.Banger("run", "--cold", "--memory", "512", "--allow", "example.com", "--name", "tools-dev", "--user", "dev", dir); r.Status != 0 {
		t.Fatalf("status %d, %s", r.Status, r.Stderr)
	}
	eventually(t, "the tools are installed", func() bool {
		return w.Banger("vm", "logs", "--source", "bootstrap", "tools-dev").Stdout == "installed in /home/dev/repo\n"
	})
	if got := w.must(t, "exec", "tools-dev", "--", "sh", "-c", "echo $MISE; sort -u ~/mise-log"); got != "yes\ninstalled in /home/dev/repo\ntrusted in /home/dev/repo" {
		t.Errorf("that user's mise was asked for %q", got)
	}
}

// TestRepositoryOfAUserWhoIsNotRoot goes the whole way as one: in, work, in again,
// out, and a copy.
func TestRepositoryOfAUserWhoIsNotRoot(t *testing.T) {
	dir := repository(t, "mkdir sub; echo one >sub/file; echo r >README; git add -A; git commit -qm one; echo dirty >README")
	w := shared
	got := w.must(t, "run", "--name", "not-root", "--memory", "512", "--user", "dev", dir, "--", "sh", "-ec",
		`id -un; pwd; git status --short; find . ~ ! -user dev; echo two >sub/file; mkdir made; echo three >made/new; git add made; git commit -qm theirs`)
	t.Cleanup(func() { w.Banger("rm", "-f", "not-root", "not-root-1") })
	if want := "dev\n/home/dev/repo\n M README"; got != want {
		t.Errorf("the command says %q, want %q", got, want)
	}
	if got := w.must(t, "exec", "not-root", "--", "sh", "-ec", "id -un; git log --format=%s"); got != "dev\ntheirs\none" {
		t.Errorf("exec is not that user's: %q", got)
	}
	if got := w.must(t, "exec", "--user", "root", "--guest-path", "/", "not-root", "--", "id", "-un"); got != "root" {
		t.Errorf("root is %q", got)
	}
	must := func(script string) {
		t.Helper()
		cmd := exec.Command("bash", "-ec", script)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	w.must(t, "vm", "workspace", "export", "not-root", "--apply")
	must(`grep -q two sub/file; grep -q three made/new; grep -q dirty README`)

	must(`mkdir here; echo h >here/file`)
	w.must(t, "vm", "workspace", "prepare", "not-root", dir, "--include-untracked", "--force")
	if got := w.must(t, "exec", "not-root", "--", "sh", "-ec", "cat here/file; find . ! -user dev; git status --short here"); got != "h\n?? here/" {
		t.Errorf("brought in again: %q", got)
	}
	if out := w.must(t, "fork", "not-root", "-n", "1", "--json", "--", "sh", "-c", "id -un >by; pwd >>by"); !strings.Contains(out, `"files_changed": 1`) {
		t.Errorf("the fork's command did not work there:\n%s", out)
	}
	if got := w.must(t, "exec", "not-root-1", "--", "cat", "by"); got != "dev\n/home/dev/repo" {
		t.Errorf("the fork's command says %q", got)
	}

	w.must(t, "vm", "workspace", "prepare", "not-root", dir, "--user", "eve")
	if got := w.must(t, "exec", "not-root", "--", "sh", "-ec", "id -un; pwd; find . ! -user eve"); got != "eve\n/home/eve/repo" {
		t.Errorf("brought in for another user: %q", got)
	}
	w.must(t, "vm", "workspace", "prepare", "not-root", dir, "--user", "root")
	if got := w.must(t, "exec", "not-root", "--", "sh", "-ec", "id -un; pwd"); got != "root\n/root/repo" {
		t.Errorf("brought in for root: %q", got)
	}
}
