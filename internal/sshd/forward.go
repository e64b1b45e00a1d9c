package sshd

import (
	"io"
	"net"
	"strconv"

	"golang.org/x/crypto/ssh"

	"banger/internal/guestlink"
)

// dialTCP connects to an address as the guest sees it, as for ssh -L and -D.
func (c *connection) dialTCP(n ssh.NewChannel) {
	var r struct {
		Host       string
		Port       uint32
		Origin     string
		OriginPort uint32
	}
	if err := ssh.Unmarshal(n.ExtraData(), &r); err != nil {
		_ = n.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	c.dial(n, "tcp", net.JoinHostPort(r.Host, strconv.FormatUint(uint64(r.Port), 10)))
}

// dialUnix connects to a socket in the guest's file system.
func (c *connection) dialUnix(n ssh.NewChannel) {
	var r struct {
		Path     string
		Reserved string
		Unused   uint32
	}
	if err := ssh.Unmarshal(n.ExtraData(), &r); err != nil {
		_ = n.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	c.dial(n, "unix", r.Path)
}

func (c *connection) dial(n ssh.NewChannel, network, address string) {
	pipe, err := c.link.Dial(c.ctx, network, address)
	if err != nil {
		_ = n.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	ch, requests, err := n.Accept()
	if err != nil {
		_ = pipe.Close()
		return
	}
	join(ch, requests, pipe)
}

// join carries bytes both ways until both have ended, or the client has closed
// the channel. What it said before that reaches the guest.
func join(ch ssh.Channel, requests <-chan *ssh.Request, pipe *guestlink.Pipe) {
	defer ch.Close()
	defer pipe.Close()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		if _, err := io.Copy(pipe, ch); err == nil {
			_ = pipe.CloseWrite()
		}
	}()
	go func() {
		ssh.DiscardRequests(requests)
		<-sent
		_ = pipe.Close()
	}()
	if _, err := io.Copy(ch, pipe); err != nil {
		return // broken, and so is the other half
	}
	_ = ch.CloseWrite()
	<-sent
}
