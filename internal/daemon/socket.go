package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/peer"
)

// socket is the listening socket with the directory it lies in.
type socket struct {
	*net.UnixListener
	dir  *os.File
	name string
	shut sync.Once
}

// listen puts a listening socket at path, in place of one that a dead daemon
// left: the caller holds the lock. It appears under its name only when it
// can be connected to. The directory is named by its descriptor, since a
// socket address holds no more than 107 bytes.
func listen(path string) (*socket, error) {
	dir, err := private(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	s := &socket{dir: dir, name: filepath.Base(path)}
	if err := s.bind(); err != nil {
		dir.Close()
		return nil, banger.Errorf(banger.Unavailable, "cannot listen on %s: %w", path, err)
	}
	return s, nil
}

func (s *socket) bind() error {
	fresh := s.name + ".new"
	if err := unix.Unlinkat(int(s.dir.Fd()), fresh, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: s.at(fresh)})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false) // ours is another name
	err = os.Chmod(s.at(fresh), 0o600)
	if err == nil {
		err = os.Rename(s.at(fresh), s.at(s.name))
	}
	if err != nil {
		l.Close()
		return err
	}
	s.UnixListener = l
	return nil
}

func (s *socket) at(name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", s.dir.Fd(), name)
}

// Close stops listening; the name goes first, so that nobody finds a socket
// that refuses. The HTTP server closes its listener as well.
func (s *socket) Close() (err error) {
	s.shut.Do(func() {
		_ = unix.Unlinkat(int(s.dir.Fd()), s.name, 0)
		err = s.UnixListener.Close()
		s.dir.Close()
	})
	return err
}

type peerKey struct{}

// withPeer notes who connected.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	uid, err := peer.UID(conn)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, uid)
}

// welcome says whether the peer of a request's connection may speak: the
// user whose daemon this is, and root, who could anyway.
func welcome(ctx context.Context) bool {
	uid, known := ctx.Value(peerKey{}).(int)
	return known && (uid == 0 || uid == os.Geteuid())
}
