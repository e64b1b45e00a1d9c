package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"banger/test/world"
)

const testUser = "banger-e2e"

// TestOrdinaryUserNeedsNoRoot makes a user, and as that user builds kernel and
// image from nothing, runs a command and cleans up.
func TestOrdinaryUserNeedsNoRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the tests run as an ordinary user already")
	}
	u := makeUser(t)
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	own := filepath.Join(u.HomeDir, "banger")
	data, err := os.ReadFile(shared.Bin)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(own, data, 0o755); err != nil { // the checkout may be in a directory only root enters
		t.Fatal(err)
	}
	if err := os.Chown(own, uid, gid); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) world.Result {
		cmd := exec.Command(own, args...)
		cmd.Dir = u.HomeDir
		cmd.Env = []string{"HOME=" + u.HomeDir, "USER=" + testUser, "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		return world.Finish(cmd)
	}
	t.Cleanup(func() { run("daemon", "stop", "--force") })
	r := run("run", "--rm", "--", "sh", "-c", "cat /etc/debian_version; id -un")
	if r.Status != 0 || !strings.HasPrefix(r.Stdout, "12.") || !strings.HasSuffix(r.Stdout, "root\n") {
		t.Fatalf("status %d\n%s%s", r.Status, r.Stdout, r.Stderr)
	}
	if r := run("ps", "-a", "-q"); r.Stdout != "" || r.Status != 0 {
		t.Errorf("left: %q, %s", r.Stdout, r.Stderr)
	}
	foreign := bytes.TrimSpace([]byte(command(t, "find", u.HomeDir, "-not", "-user", testUser)))
	if len(foreign) > 0 {
		t.Errorf("files of somebody else are in the user's home:\n%s", foreign)
	}
}

func makeUser(t *testing.T) *user.User {
	t.Helper()
	if u, err := user.Lookup(testUser); err == nil {
		removeUser(u)
	}
	command(t, "useradd", "--create-home", "--shell", "/bin/sh", testUser)
	u, err := user.Lookup(testUser)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeUser(u) })
	if sub, _ := os.ReadFile("/etc/subuid"); !bytes.Contains(sub, []byte(testUser+":")) {
		t.Fatal("useradd gave the user no subuid range")
	}
	return u
}

func removeUser(u *user.User) {
	_ = exec.Command("userdel", "--remove", "--force", testUser).Run()
	_ = os.RemoveAll(u.HomeDir)
	_ = os.RemoveAll(fmt.Sprintf("%s/banger-%s", os.TempDir(), u.Uid))
}
