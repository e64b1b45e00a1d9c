package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/test/world"
)

// client is the user's side: stock clients, the shortcut installed, and a
// known_hosts that stays empty.
type client struct {
	home
	t      *testing.T
	config string
}

func newClient(t *testing.T, w home) client {
	t.Helper()
	config := filepath.Join(w.Home, ".ssh", "config")
	before := "Host elsewhere\n\tUser somebody # kept\n"
	if err := os.MkdirAll(filepath.Dir(config), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	w.must(t, "ssh-config", "--install")
	w.must(t, "ssh-config", "--install")
	t.Cleanup(func() {
		w.must(t, "ssh-config", "--uninstall")
		if after, err := os.ReadFile(config); err != nil || string(after) != before {
			t.Errorf("the user's configuration is left as %q, %v", after, err)
		}
		if _, err := os.Stat(filepath.Join(w.Home, ".ssh", "known_hosts")); !os.IsNotExist(err) {
			t.Errorf("the user's known_hosts: %v", err)
		}
	})
	return client{w, t, config}
}

// command prepares a client that takes -F, as all of OpenSSH do: they find the
// user's own file by the uid, whatever HOME says.
func (c client) command(name string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Minute)
	context.AfterFunc(ctx, cancel)
	if name == "ssh" || name == "scp" || name == "sftp" {
		args = append([]string{"-F", c.config}, args...)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = c.t.TempDir()
	cmd.Env = append(c.Env(), "GIT_SSH_COMMAND=ssh -F "+c.config, "RSYNC_RSH=ssh -F "+c.config,
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b", "GIT_CONFIG_NOSYSTEM=1")
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

func (c client) run(name string, args ...string) string {
	c.t.Helper()
	return c.input("", name, args...)
}

func (c client) input(in, name string, args ...string) string {
	c.t.Helper()
	cmd := c.command(name, args...)
	cmd.Stdin = strings.NewReader(in)
	r := world.Finish(cmd)
	if r.Status != 0 {
		c.t.Fatalf("%s %q: status %d\n%s%s", name, args, r.Status, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

func TestStockClientsReachAVM(t *testing.T) {
	shared.start(t, "sshed")
	c := newClient(t, shared)
	blob := filepath.Join(t.TempDir(), "blob")
	content := bytes.Repeat([]byte("0123456789abcdef"), 100_000)
	if err := os.WriteFile(blob, content, 0o751); err != nil {
		t.Fatal(err)
	}
	same := func(t *testing.T, path string) {
		t.Helper()
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes came back, %v", len(got), err)
		}
		if info, err := os.Stat(path); err == nil && info.Mode().Perm() != 0o751 {
			t.Errorf("its mode is %v", info.Mode())
		}
	}
	t.Run("ssh", func(t *testing.T) {
		if got := c.input("in\n", "ssh", "sshed.vm", "cat; pwd; id -un"); got != "in\n/root\nroot\n" {
			t.Errorf("got %q", got)
		}
		if r := world.Finish(c.command("ssh", "sshed.vm", "exit 7")); r.Status != 7 {
			t.Errorf("status %d", r.Status)
		}
		if got := c.run("ssh", "guest@sshed.vm", "id -un; pwd"); got != "guest\n/home/guest\n" {
			t.Errorf("as another user: %q", got)
		}
		if got := shared.must(t, "ssh", "sshed", "echo", "by", "banger"); got != "by banger" {
			t.Errorf("banger ssh: %q", got)
		}
		if r := shared.Banger("ssh", "guest@sshed", "id -un; exit 9"); r.Stdout != "guest\n" || r.Status != 9 {
			t.Errorf("banger ssh as another user: %q, status %d", r.Stdout, r.Status)
		}
	})
	for name, flag := range map[string]string{"scp": "-s", "scp, the old protocol": "-O"} {
		t.Run(name, func(t *testing.T) {
			back := filepath.Join(t.TempDir(), "back")
			c.run("scp", "-q", flag, blob, "sshed.vm:over")
			c.run("scp", "-q", "-p", flag, "sshed.vm:over", back)
			same(t, back)
		})
	}
	t.Run("sftp", func(t *testing.T) {
		back := filepath.Join(t.TempDir(), "back")
		c.input(fmt.Sprintf("mkdir d\nput -p %s d/x\nrename d/x d/y\nget -p d/y %s\nrm d/y\nrmdir d\n", blob, back), "sftp", "-b", "-", "sshed.vm")
		same(t, back)
	})
	t.Run("rsync", func(t *testing.T) {
		back := filepath.Join(t.TempDir(), "back")
		c.run("rsync", "-a", blob, "sshed.vm:synced")
		c.run("rsync", "-a", "sshed.vm:synced", back)
		same(t, back)
	})
	t.Run("git", c.git)
}

// git goes both ways: the VM's repository is cloned and pushed to, and the VM
// fetches nothing by itself.
func (c client) git(t *testing.T) {
	c.t = t
	c.run("ssh", "sshed.vm", `git init -q -b main repo && cd repo && git config receive.denyCurrentBranch updateInstead &&
		echo one > file && git add file && git -c user.name=g -c user.email=g@g commit -qm one`)
	clone := filepath.Join(t.TempDir(), "clone")
	c.run("git", "clone", "-q", "sshed.vm:repo", clone)
	c.run("ssh", "sshed.vm", "cd repo && echo two > file && git -c user.name=g -c user.email=g@g commit -qam two")
	c.run("git", "-C", clone, "fetch", "-q")
	c.run("git", "-C", clone, "merge", "-q", "--ff-only", "origin/main")
	if got, err := os.ReadFile(filepath.Join(clone, "file")); err != nil || string(got) != "two\n" {
		t.Errorf("fetched %q, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(clone, "file"), []byte("three\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c.run("git", "-C", clone, "commit", "-qam", "three")
	c.run("git", "-C", clone, "push", "-q", "origin", "main")
	if got := c.run("ssh", "sshed.vm", "cat repo/file"); got != "three\n" {
		t.Errorf("pushed %q", got)
	}
}

func TestSSHForwardsAndSharesOneConnection(t *testing.T) {
	shared.start(t, "forwarder")
	c := newClient(t, shared)
	socket, proxy := filepath.Join(t.TempDir(), "master"), freeAddress(t)
	ready := c.command("ssh", "-M", "-S", socket, "-f", "-N",
		"-L", socket+"-l:127.0.0.1:8080", "-D", proxy, "-R", "127.0.0.1:9090:"+answering(t), "forwarder.vm")
	if r := world.Finish(ready); r.Status != 0 { // also: nobody keeps its stderr open
		t.Fatal(r.Stderr)
	}
	defer world.Finish(c.command("ssh", "-S", socket, "-O", "exit", "forwarder.vm"))
	if got := c.run("ssh", "-S", socket, "forwarder.vm", "python3 -m http.server 8080 --bind 127.0.0.1 >/dev/null 2>&1 & sleep 0; echo up"); got != "up\n" {
		t.Fatalf("by the shared connection: %q", got)
	}
	eventually(t, "an answer from inside", func() bool {
		conn, err := net.Dial("unix", socket+"-l")
		if err != nil {
			return false
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
		got, _ := io.ReadAll(conn)
		return bytes.Contains(got, []byte("200 OK"))
	})
	if got := c.run("ssh", "-S", socket, "forwarder.vm", "exec 3<>/dev/tcp/127.0.0.1/9090; cat <&3"); got != "from the host" {
		t.Errorf("the guest got %q", got)
	}
	if got := c.input("GET / HTTP/1.0\r\n\r\n", "ssh", "-W", "127.0.0.1:8080", "forwarder.vm"); !strings.Contains(got, "200 OK") {
		t.Errorf("-W: %q", got)
	}
	for name, host := range map[string]string{"an address": "\x01\x7f\x00\x00\x01", "a name": "\x03\x09localhost"} {
		if got := throughSocks(t, proxy, host+"\x1f\x90"); !strings.Contains(got, "200 OK") {
			t.Errorf("-D to %s: %q", name, got)
		}
	}
}

// freeAddress is one of the host's where nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// throughSocks asks a web server that a proxy leads to, whose address is in the
// form of SOCKS 5.
func throughSocks(t *testing.T, proxy, address string) string {
	t.Helper()
	conn, err := net.Dial("tcp", proxy)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "\x05\x01\x00\x05\x01\x00"+address)
	answer := make([]byte, 2+10)
	if _, err := io.ReadFull(conn, answer); err != nil || answer[1] != 0 || answer[3] != 0 {
		t.Fatalf("the proxy says %x, %v", answer, err)
	}
	_, _ = io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
	got, _ := io.ReadAll(conn)
	return string(got)
}

// answering is an address of the host's where whoever comes is told something.
func answering(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "from the host")
			_ = conn.Close()
		}
	}()
	return l.Addr().String()
}

func TestSSHTerminalIsResized(t *testing.T) {
	shared.start(t, "sshterm")
	c := newClient(t, shared)
	tt := openTerminal(t, 24, 80)
	cmd := c.command("ssh", "-t", "sshterm.vm", `stty size; until [ "$(stty size)" = "33 44" ]; do sleep 0.1; done; echo resized`)
	cmd.WaitDelay = 0
	tt.start(t, cmd)
	tt.await(t, "24 80")
	tt.resize(t, 33, 44)
	tt.await(t, "resized")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestSSHOutlivesTheDaemonAndWakesTheVM is one session through a restart of the
// daemon, then one right after a resume and one in a fork.
func TestSSHOutlivesTheDaemonAndWakesTheVM(t *testing.T) {
	shared.start(t, "woken")
	c := newClient(t, shared)
	cmd := c.command("ssh", "woken.vm", "cat")
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	echo := func(word string) {
		t.Helper()
		_, _ = io.WriteString(in, word)
		got := make([]byte, len(word))
		if _, err := io.ReadFull(out, got); err != nil || string(got) != word {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	echo("before")
	shared.must(t, "daemon", "stop")
	echo("after")
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	shared.must(t, "vm", "suspend", "woken")
	if got := c.run("ssh", "woken.vm", "echo awake"); got != "awake\n" {
		t.Errorf("got %q", got)
	}
	shared.must(t, "fork", "woken")
	t.Cleanup(func() { shared.Banger("rm", "-f", "woken-1") })
	if got := c.run("ssh", "woken-1.vm", "hostname"); got != "woken-1\n" {
		t.Errorf("in the fork: %q", got)
	}
	mine, _ := os.ReadFile(filepath.Join(shared.show(t, "woken").Dir, "ssh_host_ed25519_key"))
	if other, err := os.ReadFile(filepath.Join(shared.show(t, "woken-1").Dir, "ssh_host_ed25519_key")); err != nil || bytes.Equal(mine, other) {
		t.Errorf("the fork has its parent's host key: %v", err)
	}
	shared.must(t, "vm", "rename", "woken-1", "renamed")
	t.Cleanup(func() { shared.Banger("rm", "-f", "renamed") })
	if got := c.run("ssh", "renamed.vm", "echo still"); got != "still\n" {
		t.Errorf("after a rename: %q", got)
	}
}

func TestSSHRefusesAVMWithAnotherKeyAndOtherPeoplesKeys(t *testing.T) {
	shared.start(t, "forged")
	c := newClient(t, shared)
	c.run("ssh", "forged.vm", "true")
	dir := t.TempDir()
	command(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, "other"))
	r := world.Finish(c.command("ssh", "-o", "IdentityFile="+filepath.Join(dir, "other"), "-F", "none",
		"-o", "ProxyCommand="+shared.Bin+" ssh-proxy %h", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "root@forged.vm", "true"))
	if r.Status != 255 || !strings.Contains(r.Stderr, "Permission denied (publickey)") {
		t.Errorf("with another user's key: status %d, %s", r.Status, r.Stderr)
	}
	key := filepath.Join(shared.show(t, "forged").Dir, "ssh_host_ed25519_key")
	text, _ := os.ReadFile(filepath.Join(dir, "other"))
	if err := os.WriteFile(key, text, 0o600); err != nil {
		t.Fatal(err)
	}
	r = world.Finish(c.command("ssh", "forged.vm", "true"))
	if r.Status != 255 || !strings.Contains(r.Stderr, "host key of forged") {
		t.Errorf("with another host key: status %d, %s", r.Status, r.Stderr)
	}
	// ssh checks by itself: a server that presents that key, and asks nobody.
	pins := filepath.Join(shared.State(), "keys", "known_hosts")
	old, _ := os.ReadFile(pins)
	public, _ := os.ReadFile(filepath.Join(dir, "other.pub"))
	id := shared.show(t, "forged").ID
	pinned := fmt.Sprintf("banger-%s,forged.vm %s\n", id, strings.Join(strings.Fields(string(public))[:2], " "))
	if err := os.WriteFile(pins, []byte(pinned), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.WriteFile(pins, old, 0o600) })
	wrong := filepath.Join(dir, "pins")
	if err := os.WriteFile(wrong, old, 0o600); err != nil {
		t.Fatal(err)
	}
	r = world.Finish(c.command("ssh", "-o", "UserKnownHostsFile="+wrong, "forged.vm", "true"))
	if r.Status != 255 || !strings.Contains(r.Stderr, "forged.vm has changed") {
		t.Errorf("by ssh's own check: status %d, %s", r.Status, r.Stderr)
	}
}
