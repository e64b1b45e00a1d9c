package sshd

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"

	"banger/internal/guest"
	"banger/internal/guestwire"
)

// TestMain is the agent itself where a test starts this binary as one, or that
// agent does for files.
func TestMain(m *testing.M) {
	if os.Getenv("BANGER_GUEST_SERVE") != "" {
		os.Exit(guest.Main([]string{"banger-guest", "serve"}, "test"))
	}
	if len(os.Args) == 2 && os.Args[1] == "sftp" {
		os.Exit(guest.Main(os.Args, "test"))
	}
	os.Exit(m.Run())
}

// rig is a server of an agent that runs as a process of this host.
type rig struct {
	t      *testing.T
	server Server
	home   string // of the guest's user
	agent  *exec.Cmd
	key    ssh.Signer
	served chan error // what Serve returned
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, home: t.TempDir(), served: make(chan error, 8)}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = syscall.SetNonblock(pair[0], true)
	ours, theirs := os.NewFile(uintptr(pair[0]), "host"), os.NewFile(uintptr(pair[1]), "guest")
	r.agent = exec.Command("/proc/self/exe")
	r.agent.Env = append(os.Environ(), "BANGER_GUEST_SERVE=1", "HOME="+r.home)
	r.agent.ExtraFiles = []*os.File{theirs}
	if err := r.agent.Start(); err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	conn, err := guestwire.Dial(ours, guestwire.NewToken(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); _ = r.agent.Wait() })
	host, _ := newKey(t)
	path := filepath.Join(t.TempDir(), "host")
	if err := os.WriteFile(path, host, 0o600); err != nil {
		t.Fatal(err)
	}
	_, r.key = newKey(t)
	r.server = Server{
		HostKey: path, UserKey: string(ssh.MarshalAuthorizedKey(r.key.PublicKey())), Guest: conn, Welcome: func() {},
	}
	return r
}

func newKey(t *testing.T) ([]byte, ssh.Signer) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(block), signer
}

// sockets are two ends of one connection.
func sockets(t *testing.T) (net.Conn, net.Conn) {
	t.Helper()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range pair {
		f := os.NewFile(uintptr(fd), "socket")
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	return ends[0], ends[1]
}

// tries connects as a user who has a key.
func (r *rig) tries(key ssh.Signer) (*ssh.Client, error) {
	here, there := sockets(r.t)
	go func() {
		err := r.server.Serve(there)
		_ = there.Close()
		r.served <- err
	}()
	user := os.Getenv("USER")
	if user == "" {
		user = "root"
	}
	conn, channels, requests, err := ssh.NewClientConn(here, "vm", &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		_ = here.Close()
		return nil, err
	}
	return ssh.NewClient(conn, channels, requests), nil
}

func (r *rig) connect() *ssh.Client {
	r.t.Helper()
	c, err := r.tries(r.key)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (r *rig) session(c *ssh.Client) *ssh.Session {
	r.t.Helper()
	s, err := c.NewSession()
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}
