// Package sshd is the SSH server of a VM. It runs on the host, beside the
// client, and turns what SSH asks for into streams to the guest: sessions are
// commands, forwarded connections are dialled inside. The guest has no key, no
// port and nothing to encrypt.
//
// It knows the SSH protocol and the wire of the guest's agent, and nothing of
// how a VM is found, which keys there are or who starts it.
package sshd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"banger"
	"banger/internal/guestlink"
	"banger/internal/guestwire"
)

// Server serves clients of one VM.
type Server struct {
	VM      string          // its name
	HostKey string          // file of the VM's private key
	UserKey string          // the only key that is let in, as in authorized_keys
	Guest   *guestwire.Conn // streams on it reach the guest
	UID     uint32          // of a user that the guest lacks and is asked for
	Welcome func()          // called once a client was let in
	Agent   bool            // the client's key agent may be forwarded
	Notice  string          // what a shell on a terminal opens with, "" for nothing
	Env     []string        // KEY=VALUE, of each command; the client's own wins
}

// farewell is how long sessions may take to say why their guest is gone.
const farewell = 3 * time.Second

// Serve speaks SSH with one client until it leaves, or the guest is gone,
// which is an error of code unavailable.
func (s *Server) Serve(client io.ReadWriteCloser) error {
	config, err := s.config()
	if err != nil {
		return banger.Errorf(banger.Unavailable, "cannot serve SSH: %w", err)
	}
	conn, channels, requests, err := ssh.NewServerConn(wire{client}, config)
	if err != nil {
		return refused(err)
	}
	s.Welcome()
	c := &connection{server: s, user: conn.User(), link: guestlink.Over(s.Guest), conn: conn}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c.ctx = ctx
	go c.answer(requests)
	left := make(chan struct{})
	go func() {
		for n := range channels {
			c.work.Go(func() { c.accept(n) })
		}
		close(left)
	}()
	select {
	case <-left:
		return nil
	case <-s.Guest.Done():
	}
	c.awaitWork(farewell)
	_ = conn.Close()
	return banger.Errorf(banger.Unavailable, "the connection to the guest ended: %w", s.Guest.Err())
}

func (s *Server) config() (*ssh.ServerConfig, error) {
	text, err := os.ReadFile(s.HostKey)
	if err != nil {
		return nil, err
	}
	host, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, err
	}
	user, _, _, _, err := ssh.ParseAuthorizedKey([]byte(s.UserKey))
	if err != nil {
		return nil, err
	}
	cfg := &ssh.ServerConfig{
		ServerVersion: "SSH-2.0-banger",
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if !bytes.Equal(key.Marshal(), user.Marshal()) {
				return nil, errors.New("not the key that this VM lets in")
			}
			return nil, nil
		},
	}
	cfg.AddHostKey(host)
	return cfg, nil
}

// refused tells a client that had no right key from one that merely left.
func refused(err error) error {
	var auth *ssh.ServerAuthError
	switch {
	case errors.As(err, &auth) && len(auth.Errors) > 1: // the first is that of no key at all
		return banger.Errorf(banger.Unauthorized, "the key that was offered is not the one that VMs let in").
			Hint("banger ssh-config prints the IdentityFile to use; ssh_key_path in the configuration is another")
	case errors.Is(err, io.EOF), errors.As(err, &auth):
		return nil
	}
	return banger.Errorf(banger.BadRequest, "cannot agree with the SSH client: %w", err)
}

// connection is one client that was let in.
type connection struct {
	server   *Server
	user     string
	link     *guestlink.Link
	conn     *ssh.ServerConn
	ctx      context.Context // until the client has left
	forwards forwards
	work     sync.WaitGroup // channels that are served
}

// awaitWork waits for the channels to end, and no longer than bound.
func (c *connection) awaitWork(bound time.Duration) {
	done := make(chan struct{})
	go func() { c.work.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(bound):
	}
}

func (c *connection) accept(n ssh.NewChannel) {
	switch n.ChannelType() {
	case "session":
		c.session(n)
	case "direct-tcpip":
		c.dialTCP(n)
	case "direct-streamlocal@openssh.com":
		c.dialUnix(n)
	default:
		_ = n.Reject(ssh.UnknownChannelType, "banger has no channels of type "+n.ChannelType())
	}
}
