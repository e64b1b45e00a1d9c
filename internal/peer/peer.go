// Package peer tells who is at the other end of a unix socket. The kernel says
// so, not the peer.
//
// Whom to trust is for the rooms to decide that ask.
package peer

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// UID is the user the other end belonged to when it connected or listened.
func UID(conn *net.UnixConn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	var cred *unix.Ucred
	failed := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(failed, err); err != nil {
		return -1, err
	}
	return int(cred.Uid), nil
}
