package sshd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	"banger"
	"banger/internal/guestlink"
	"banger/internal/guestwire"
)

// session is a session channel: settings first, then one command.
type session struct {
	c       *connection
	ch      ssh.Channel
	env     []string
	pty     *ptyRequest
	stream  *guestwire.Stream   // the command, once there is one
	agent   *guestlink.Listener // the client's key agent, or nil
	carried chan struct{}       // closed when it has ended; nil before it began
}

// session serves a session until both the client and the command are done
// with it.
func (c *connection) session(n ssh.NewChannel) {
	ch, requests, err := n.Accept()
	if err != nil {
		return
	}
	s := &session{c: c, ch: ch}
	for r := range requests {
		err := s.request(r)
		if r.WantReply {
			_ = r.Reply(err == nil, nil)
		}
		if s.stream != nil && s.carried == nil {
			s.carried = make(chan struct{})
			go s.carry()
		}
	}
	if s.stream != nil {
		s.stream.Reset() // the client left; a command that has ended is beyond it
		<-s.carried
	}
	if s.agent != nil {
		s.agent.Close()
	}
	_ = ch.Close()
}

// errNotOffered says no to a request.
var errNotOffered = errors.New("not offered")

func (s *session) request(r *ssh.Request) error {
	switch r.Type {
	case "env":
		return s.setEnv(r.Payload)
	case "pty-req":
		return s.setPty(r.Payload)
	case "window-change":
		return s.resize(r.Payload)
	case "signal":
		return s.signal(r.Payload)
	case "auth-agent-req@openssh.com":
		return s.offerAgent()
	case "shell":
		return s.shell()
	case "exec":
		return s.exec(r.Payload)
	case "subsystem":
		return s.subsystem(r.Payload)
	}
	return errNotOffered
}

// shell starts the user's own, and says first what somebody at a terminal should know.
func (s *session) shell() error {
	err := s.start(guestwire.Exec{Argv: []string{defaultShell}, Program: guestwire.ProgramLogin})
	if err == nil && s.pty != nil && s.c.server.Notice != "" {
		s.say(s.c.server.Notice)
	}
	return err
}

// defaultShell is that of users without one of their own.
const defaultShell = "/bin/sh"

func (s *session) exec(payload []byte) error {
	var r struct{ Command string }
	if err := ssh.Unmarshal(payload, &r); err != nil {
		return err
	}
	return s.start(guestwire.Exec{Argv: []string{defaultShell, "-c", r.Command}, Program: guestwire.ProgramShell})
}

// subsystem starts the one that is known: the agent serves files itself.
func (s *session) subsystem(payload []byte) error {
	var r struct{ Name string }
	if err := ssh.Unmarshal(payload, &r); err != nil {
		return err
	}
	if r.Name != "sftp" {
		return errNotOffered
	}
	return s.start(guestwire.Exec{Argv: []string{"banger-agent", "sftp"}, Program: guestwire.ProgramAgent})
}

// start asks the guest for the command. The shim holds it until that is ready.
func (s *session) start(e guestwire.Exec) (err error) {
	if s.stream != nil {
		return errors.New("a session has one command")
	}
	e.User, e.UID, e.Stdin = s.c.user, s.c.server.UID, true
	// What tells programs that somebody is there by SSH.
	e.Env = append(slices.Clone(s.c.server.Env), "SSH_CLIENT=127.0.0.1 0 22", "SSH_CONNECTION=127.0.0.1 0 127.0.0.1 22")
	if p := s.pty; p != nil {
		e.TTY, e.Rows, e.Cols = true, short(p.Rows), short(p.Cols)
		e.Env = append(e.Env, "TERM="+p.Term)
	}
	e.Env = append(e.Env, s.env...)
	s.stream, err = s.c.server.Guest.Open(guestwire.KindExec, e.Append(nil))
	return err
}

// carry joins the command to the channel until it has ended.
func (s *session) carry() {
	defer close(s.carried)
	defer s.ch.Close()
	go s.feed()
	var outputs sync.WaitGroup
	outputs.Go(func() { s.copy(guestwire.Stdout, s.ch) })
	outputs.Go(func() { s.copy(guestwire.Stderr, s.ch.Stderr()) })
	outputs.Wait()
	body, err := s.stream.Wait(context.Background())
	if err != nil {
		s.complain(guestlink.Error(err))
		return
	}
	exit, err := guestwire.ParseExit(body)
	if err != nil {
		s.complain(err)
		return
	}
	if exit.Message != "" {
		s.say(exit.Message)
	}
	_ = s.ch.CloseWrite()
	s.tell(exit)
}

// feed passes input on, and the end of it. It ends with the channel.
func (s *session) feed() {
	to := s.stream.Writer(guestwire.Stdin)
	_, _ = io.Copy(to, s.ch)
	_ = to.Close()
}

// copy passes one output on. A client that reads no more closes the command's
// pipe; what comes then is dropped.
func (s *session) copy(channel uint8, to io.Writer) {
	from := s.stream.Reader(channel)
	if _, err := io.Copy(to, from); err == nil {
		return
	}
	_ = s.stream.Control(guestwire.CloseOutputControl(channel))
	_, _ = io.Copy(io.Discard, from)
}

// tell says how the command ended.
func (s *session) tell(exit guestwire.Exit) {
	if name := signalName(exit.Signal); name != "" {
		_, _ = s.ch.SendRequest("exit-signal", false, ssh.Marshal(struct {
			Signal     string
			CoreDumped bool
			Message    string
			Language   string
		}{Signal: name}))
		return
	}
	_, _ = s.ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(exit.Status)}))
}

// complain says why there will be no status.
func (s *session) complain(err error) {
	if errors.Is(err, guestwire.ErrReset) {
		return // the client has left
	}
	s.say(err.Error())
	for _, h := range banger.HintsOf(err) {
		_, _ = fmt.Fprintf(s.ch.Stderr(), "hint: %s\r\n", banger.NameVM(h, s.c.server.VM))
	}
}

// say writes a line to the client's stderr. What a guest says cannot move a
// cursor by it.
func (s *session) say(message string) {
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '\uFFFD'
		}
		return r
	}, message)
	_, _ = fmt.Fprintf(s.ch.Stderr(), "banger: %s\r\n", clean)
}
