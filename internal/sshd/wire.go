package sshd

import (
	"io"
	"net"
	"time"
)

// wire is what the SSH library takes for a network connection.
type wire struct{ io.ReadWriteCloser }

func (wire) LocalAddr() net.Addr              { return nowhere{} }
func (wire) RemoteAddr() net.Addr             { return nowhere{} }
func (wire) SetDeadline(time.Time) error      { return nil }
func (wire) SetReadDeadline(time.Time) error  { return nil }
func (wire) SetWriteDeadline(time.Time) error { return nil }

// nowhere is the address of a pipe.
type nowhere struct{}

func (nowhere) Network() string { return "pipe" }
func (nowhere) String() string  { return "pipe" }
