package sshd

import (
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"banger/internal/guestwire"
)

// ptyRequest is what a client says of its terminal. Its modes are left out:
// those a kernel gives a new terminal are what people expect.
type ptyRequest struct {
	Term          string
	Cols, Rows    uint32
	Width, Height uint32 // in pixels
	Modes         string
}

func (s *session) setPty(payload []byte) error {
	var r ptyRequest
	if err := ssh.Unmarshal(payload, &r); err != nil {
		return err
	}
	s.pty = &r
	return nil
}

func (s *session) resize(payload []byte) error {
	var r struct{ Cols, Rows, Width, Height uint32 }
	if err := ssh.Unmarshal(payload, &r); err != nil {
		return err
	}
	if s.stream == nil || s.pty == nil {
		return errNotOffered
	}
	return s.stream.Control(guestwire.ResizeControl(short(r.Rows), short(r.Cols)))
}

func short(n uint32) uint16 { return uint16(min(n, 1<<16-1)) }

// setEnv takes a variable, but for the language: clients send the host's
// unasked, and a guest that lacks it complains at every command.
func (s *session) setEnv(payload []byte) error {
	var r struct{ Name, Value string }
	if err := ssh.Unmarshal(payload, &r); err != nil {
		return err
	}
	language := r.Name == "LANG" || r.Name == "LANGUAGE" || strings.HasPrefix(r.Name, "LC_")
	if language || r.Name == "" || strings.ContainsAny(r.Name, "=\x00") || strings.Contains(r.Value, "\x00") {
		return errNotOffered
	}
	s.env = append(s.env, r.Name+"="+r.Value)
	return nil
}

func (s *session) signal(payload []byte) error {
	var r struct{ Name string }
	if err := ssh.Unmarshal(payload, &r); err != nil {
		return err
	}
	n := unix.SignalNum("SIG" + r.Name)
	if n == 0 || s.stream == nil {
		return errNotOffered
	}
	return s.stream.Control(guestwire.SignalControl(uint8(n)))
}

// signalName is a signal as SSH calls it, or "".
func signalName(n uint8) string {
	return strings.TrimPrefix(unix.SignalName(unix.Signal(n)), "SIG")
}
