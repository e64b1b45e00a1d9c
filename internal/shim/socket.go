package shim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/paths"
	"banger/internal/peer"
)

// A socket address holds 108 bytes and a state directory may be longer, so the
// socket is reached through an open descriptor of its directory.
type directory struct{ *os.File }

func openDirectory(dir paths.VM) (directory, error) {
	fd, err := unix.Open(string(dir), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return directory{}, &os.PathError{Op: "open", Path: string(dir), Err: err}
	}
	return directory{os.NewFile(uintptr(fd), string(dir))}, nil
}

func (d directory) address(path string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), filepath.Base(path))
}

func dialSocket(ctx context.Context, dir paths.VM) (net.Conn, error) {
	d, err := openDirectory(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, banger.Errorf(banger.NotFound, "there is no such VM: %w", err)
	}
	if err != nil {
		return nil, banger.Errorf(banger.Unavailable, "cannot open the VM's directory: %w", err)
	}
	defer d.Close()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", d.address(dir.ShimSocket()))
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil:
		return nil, banger.Errorf(banger.Cancelled, "cannot reach the VM's shim: %w", ctx.Err())
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return nil, banger.Errorf(banger.NotRunning, "the VM is not running").Hint("start it with banger vm start")
	}
	return nil, banger.Errorf(banger.Unavailable, "cannot reach the VM's shim: %w", err)
}

// listen binds the control socket, taking the place of one that a killed shim
// left: the lock says that there is no other. The umask keeps it private
// until it is 0600.
func listen(dir paths.VM) (*net.UnixListener, error) {
	d, err := openDirectory(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if err := os.Remove(dir.ShimSocket()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: d.address(dir.ShimSocket()), Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // that name is no longer ours to resolve
	if err := os.Chmod(dir.ShimSocket(), 0o600); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// trusted says whether the peer is this user or root.
func trusted(conn *net.UnixConn) bool {
	uid, err := peer.UID(conn)
	return err == nil && (uid == 0 || uid == os.Getuid())
}
