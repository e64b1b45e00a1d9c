package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"banger/test/world"
)

func TestCopiesGoBothWays(t *testing.T) {
	shared.start(t, "copies")
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/a file", []byte("content"), 0o640); err != nil {
		t.Fatal(err)
	}
	shared.must(t, "cp", dir, "copies:/root/in")
	shared.must(t, "cp", "copies:/root/in", dir+"/out")
	got, err := os.ReadFile(dir + "/out/a file")
	if err != nil || string(got) != "content" {
		t.Errorf("%q, %v", got, err)
	}
	if info, _ := os.Stat(dir + "/out/a file"); info == nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v", info)
	}
}

func TestCopiesKeepOwnersAndFollowLinksOnlyWhenAsked(t *testing.T) {
	shared.start(t, "owners")
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", link); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		if err := os.Chown(file, 1234, 1235); err != nil {
			t.Fatal(err)
		}
	}
	owner := strings.TrimSpace(command(t, "stat", "-c", "%u:%g", file))
	shared.must(t, "cp", file, "owners:/root/plain")
	shared.must(t, "cp", "-a", file, "owners:/root/kept")
	shared.must(t, "cp", link, "owners:/root/as-link")
	shared.must(t, "cp", "-L", link, "owners:/root/as-file")
	shared.check(t, "owners", []look{{"what came in", `cd /root; stat -c '%n %u:%g %F' plain kept as-link as-file; ln -s plain out-link; chown 4321:4322 plain`,
		"plain 0:0 regular file\nkept " + owner + " regular file\nas-link 0:0 symbolic link\nas-file 0:0 regular file"}})

	shared.must(t, "cp", "owners:/root/plain", dir+"/plain")
	shared.must(t, "cp", "owners:/root/out-link", dir+"/as-link")
	shared.must(t, "cp", "-L", "owners:/root/out-link", dir+"/as-file")
	mine := strings.TrimSpace(command(t, "stat", "-c", "%u:%g", dir))
	want := "plain " + mine + " regular file\nas-link " + mine + " symbolic link\nas-file " + mine + " regular file\n"
	names := []string{"plain", "as-link", "as-file"}
	if os.Getuid() == 0 {
		shared.must(t, "cp", "-a", "owners:/root/plain", dir+"/kept")
		names, want = append(names, "kept"), want+"kept 4321:4322 regular file\n"
	}
	cmd := exec.Command("stat", append([]string{"-c", "%n %u:%g %F"}, names...)...)
	cmd.Dir = dir
	if got := world.Finish(cmd); got.Stdout != want {
		t.Errorf("what came out:\n%s%s, want\n%s", got.Stdout, got.Stderr, want)
	}
}

func TestTarStreamsGoBothWays(t *testing.T) {
	shared.start(t, "tar")
	dir := t.TempDir()
	script := `set -e
mkdir -p "$1/tree/empty"; cd "$1"; head -c 3M /dev/urandom >tree/big; ln -s big tree/link; chmod 700 tree/big
tar c tree | "$0" cp - tar:/srv
"$0" cp tar:/srv/tree - | tar x --one-top-level=back
cmp tree/big back/tree/big; test "$(readlink back/tree/link)" = big; test -d back/tree/empty; stat -c %a back/tree/big`
	cmd := exec.Command("bash", "-o", "pipefail", "-c", script, shared.Bin, dir)
	cmd.Env = shared.Env()
	if r := world.Finish(cmd); r.Status != 0 || r.Stdout != "700\n" {
		t.Errorf("status %d, %q\n%s", r.Status, r.Stdout, r.Stderr)
	}
	r := shared.Banger("cp", "tar:/srv/no-such", "-")
	if r.Status != 1 || r.Stdout != "" || !strings.Contains(r.Stderr, "/srv/no-such") {
		t.Errorf("status %d, %q, %s", r.Status, r.Stdout, r.Stderr)
	}
}
