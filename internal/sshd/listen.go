package sshd

import (
	"context"
	"net"
	"strconv"
	"sync"

	"golang.org/x/crypto/ssh"

	"banger/internal/guestlink"
	"banger/internal/guestwire"
)

// forwards are the sockets inside the guest that a client answers.
type forwards struct {
	mu   sync.Mutex
	open map[string]*guestlink.Listener // by what the client calls them
}

func (f *forwards) add(name string, l *guestlink.Listener) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == nil {
		f.open = map[string]*guestlink.Listener{}
	}
	f.open[name] = l
}

func (f *forwards) close(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.open[name]
	if !ok {
		return errNotOffered
	}
	delete(f.open, name)
	l.Close()
	return nil
}

// answer answers what is asked of the connection as a whole.
func (c *connection) answer(requests <-chan *ssh.Request) {
	for r := range requests {
		payload, err := c.request(r)
		// Keep-alives get a no too: a client wants an answer, not a yes.
		_ = r.Reply(err == nil, payload)
	}
}

// tcpForward is a request for ssh -R, or for its end.
type tcpForward struct {
	Host string
	Port uint32
}

func (t tcpForward) name() string {
	return "tcp " + net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port)))
}

// address is where to listen. A client that names no host means the guest alone
// unless it says "*".
func (t tcpForward) address() string {
	host := t.Host
	switch host {
	case "", "*":
		host = ""
	case "localhost":
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, strconv.Itoa(int(t.Port)))
}

func (c *connection) request(r *ssh.Request) (reply []byte, err error) {
	switch r.Type {
	case "tcpip-forward":
		return c.listenTCP(r.Payload)
	case "streamlocal-forward@openssh.com":
		return nil, c.listenUnix(r.Payload)
	case "cancel-tcpip-forward":
		var t tcpForward
		if err := ssh.Unmarshal(r.Payload, &t); err != nil {
			return nil, err
		}
		return nil, c.forwards.close(t.name())
	case "cancel-streamlocal-forward@openssh.com":
		var u struct{ Path string }
		if err := ssh.Unmarshal(r.Payload, &u); err != nil {
			return nil, err
		}
		return nil, c.forwards.close("unix " + u.Path)
	}
	return nil, errNotOffered
}

func (c *connection) listenTCP(payload []byte) (reply []byte, err error) {
	var t tcpForward
	if err := ssh.Unmarshal(payload, &t); err != nil {
		return nil, err
	}
	l, err := c.link.Listen(c.ctx, guestwire.Listen{Network: "tcp", Address: t.address()})
	if err != nil {
		return nil, err
	}
	if t.Port == 0 {
		_, port, _ := net.SplitHostPort(l.Address)
		n, _ := strconv.Atoi(port)
		t.Port = uint32(n)
		reply = ssh.Marshal(struct{ Port uint32 }{t.Port})
	}
	c.forwards.add(t.name(), l)
	// Nobody asks who it was in the guest, but some clients refuse port 0.
	go c.serve(l, "forwarded-tcpip", ssh.Marshal(struct {
		Host       string
		Port       uint32
		Origin     string
		OriginPort uint32
	}{t.Host, t.Port, "127.0.0.1", 1}))
	return reply, nil
}

func (c *connection) listenUnix(payload []byte) error {
	var u struct{ Path string }
	if err := ssh.Unmarshal(payload, &u); err != nil {
		return err
	}
	l, err := c.link.Listen(c.ctx, guestwire.Listen{Network: "unix", Address: u.Path, User: c.user, UID: c.server.UID})
	if err != nil {
		return err
	}
	c.forwards.add("unix "+u.Path, l)
	go c.serve(l, "forwarded-streamlocal@openssh.com", ssh.Marshal(struct{ Path, Reserved string }{u.Path, ""}))
	return nil
}

// mostJoined is how many connections a guest has the client answer at one listener;
// more wait in the guest.
const mostJoined = 128

// serve joins what connects in the guest to the client, until one of them ends it.
func (c *connection) serve(l *guestlink.Listener, kind string, extra []byte) {
	defer l.Close()
	room := make(chan struct{}, mostJoined)
	for {
		select {
		case room <- struct{}{}:
		case <-c.ctx.Done():
			return
		}
		pipe, err := l.Accept(c.ctx)
		if err != nil {
			return
		}
		go func() {
			defer func() { <-room }()
			ch, requests, err := c.conn.OpenChannel(kind, extra)
			if err != nil {
				_ = pipe.Close()
				return
			}
			join(ch, requests, pipe)
		}()
	}
}

// offerAgent gives the session's commands a socket behind which the client's key
// agent is, for as long as the session lasts.
func (s *session) offerAgent() error {
	if !s.c.server.Agent || s.stream != nil || s.agent != nil {
		return errNotOffered
	}
	l, err := s.c.link.Listen(context.Background(), guestwire.Listen{Network: "unix", User: s.c.user, UID: s.c.server.UID})
	if err != nil {
		return err
	}
	s.agent = l
	s.env = append(s.env, "SSH_AUTH_SOCK="+l.Address)
	go s.c.serve(l, "auth-agent@openssh.com", nil)
	return nil
}
