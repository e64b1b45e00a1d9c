package sshkeys

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"banger"
	"banger/internal/paths"
)

type rig struct {
	*Keys
	t *testing.T
}

func newRig(t *testing.T) rig {
	return rig{&Keys{Dirs: paths.Dirs{State: filepath.Join(t.TempDir(), "state")}}, t}
}

// vm makes the directory of a VM.
func (r rig) vm(id string) paths.VM {
	r.t.Helper()
	dir := r.Dirs.VM(id)
	if err := os.MkdirAll(string(dir), 0o700); err != nil {
		r.t.Fatal(err)
	}
	return dir
}

func (r rig) host(id, name string) {
	r.t.Helper()
	if err := r.Host(r.vm(id), id, name); err != nil {
		r.t.Fatal(err)
	}
}

// names are those that known_hosts has, a line each, without the keys.
func (r rig) names() string {
	r.t.Helper()
	text, err := os.ReadFile(r.Dirs.KnownHosts())
	if err != nil {
		r.t.Fatal(err)
	}
	var names []string
	for l := range strings.Lines(string(text)) {
		names = append(names, strings.Fields(l)[0])
	}
	return strings.Join(names, " ")
}

func TestHostKeyIsMadeOnceAndPinned(t *testing.T) {
	r := newRig(t)
	r.host("1", "devbox")
	before, err := os.ReadFile(r.Dirs.KnownHosts())
	if err != nil {
		t.Fatal(err)
	}
	r.host("1", "devbox")
	after, _ := os.ReadFile(r.Dirs.KnownHosts())
	if string(after) != string(before) || !strings.HasPrefix(string(after), "banger-1,devbox.vm ssh-ed25519 ") {
		t.Errorf("known_hosts was\n%sand is\n%s", before, after)
	}
	for _, path := range []string{r.Dirs.VM("1").HostKey(), r.Dirs.KnownHosts()} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

func TestEveryVMHasAKeyOfItsOwn(t *testing.T) {
	r := newRig(t)
	r.host("1", "a")
	r.host("2", "b")
	one, _ := os.ReadFile(r.Dirs.VM("1").HostKey())
	if two, _ := os.ReadFile(r.Dirs.VM("2").HostKey()); string(one) == string(two) {
		t.Error("both have the same")
	}
}

func TestHostKeyThatIsNotThePinnedOneIsRefusedByName(t *testing.T) {
	for what, spoil := range map[string]func(paths.VM) error{
		"another": func(dir paths.VM) error { _, err := generate(dir.HostKey(), ""); return err },
		"none":    func(dir paths.VM) error { return os.Remove(dir.HostKey()) },
	} {
		r := newRig(t)
		r.host("1", "devbox")
		if err := spoil(r.Dirs.VM("1")); err != nil {
			t.Fatal(err)
		}
		err := r.Host(r.Dirs.VM("1"), "1", "devbox")
		if banger.CodeOf(err) != banger.Conflict || !strings.Contains(err.Error(), "devbox") {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

func TestPinFollowsTheVM(t *testing.T) {
	r := newRig(t)
	r.host("1", "a")
	r.host("2", "b")
	if err := r.Rename("1", "c"); err != nil || r.names() != "banger-1,c.vm banger-2,b.vm" {
		t.Errorf("after the renaming: %s, %v", r.names(), err)
	}
	if err := r.Rename("3", "d"); err != nil || r.names() != "banger-1,c.vm banger-2,b.vm" {
		t.Errorf("after the renaming of one that is not pinned: %s, %v", r.names(), err)
	}
	r.host("3", "b") // whoever had the name is gone, and nobody noticed
	if r.names() != "banger-1,c.vm banger-2 banger-3,b.vm" {
		t.Errorf("a name of two VMs: %s", r.names())
	}
	if err := r.Forget("2"); err != nil || r.names() != "banger-1,c.vm banger-3,b.vm" {
		t.Errorf("after the end of one: %s, %v", r.names(), err)
	}
	if err := r.Keep(func(id string) bool { return id == "3" }); err != nil || r.names() != "banger-3,b.vm" {
		t.Errorf("after the end of all but one: %s, %v", r.names(), err)
	}
}

func TestUserKeyIsMadeOnce(t *testing.T) {
	r := newRig(t)
	first, err := r.User("")
	if err != nil {
		t.Fatal(err)
	}
	second, err := r.User("")
	if err != nil || first != second {
		t.Errorf("got %v and %v, %v", first, second, err)
	}
	if info, err := os.Stat(first.Path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, %v", info.Mode(), err)
	}
	if public, err := os.ReadFile(first.Path + ".pub"); err != nil || strings.TrimSpace(string(public)) != first.Key {
		t.Errorf("the public half is %q, %v", public, err)
	}
}

// TestUsersOwnKeyIsRead covers keys as people have them: open, with a passphrase
// that nobody asks for, and of a kind only their agent knows.
func TestUsersOwnKeyIsRead(t *testing.T) {
	r := newRig(t)
	_, private, _ := ed25519.GenerateKey(rand.Reader)
	public, _ := ssh.NewPublicKey(private.Public())
	open, _ := ssh.MarshalPrivateKey(private, "")
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "id")
	unknown := []byte("another format\n")
	for _, text := range [][]byte{pem.EncodeToMemory(open), pem.EncodeToMemory(locked), unknown} {
		if string(text) == string(unknown) {
			_ = os.WriteFile(path+".pub", ssh.MarshalAuthorizedKey(public), 0o600)
		}
		_ = os.WriteFile(path, text, 0o600)
		if got, err := r.User(path); err != nil || got.Path != path || got.Key != line(public) {
			t.Errorf("%s: got %v, %v", text[:14], got, err)
		}
	}
	_ = os.Remove(path + ".pub")
	if _, err := r.User(path); banger.CodeOf(err) != banger.Conflict || len(banger.HintsOf(err)) == 0 {
		t.Errorf("without a public half: %v", err)
	}
	if _, err := r.User(path + "-none"); err == nil || !strings.Contains(err.Error(), "ssh_key_path") {
		t.Errorf("without a key: %v", err)
	}
}
