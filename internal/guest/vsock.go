package guest

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"banger/internal/tether"

	"golang.org/x/sys/unix"
)

// vsockLink is a stream to the host that outlives vsock's connections: all of them end
// when the machine is saved, here and wherever it is restored.
type vsockLink struct {
	*tether.Stream
	listener *os.File
}

// listenVsock has the host connect to a port. It is below 1024: only who has the right to
// listen there, as this program does, could take its place.
func listenVsock(port uint32) (io.ReadWriteCloser, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("vsock", err)
	}
	l := vsockLink{tether.NewGuest(), os.NewFile(uintptr(fd), "vsock")}
	err = errors.Join(
		os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port})),
		os.NewSyscallError("listen", unix.Listen(fd, unix.SOMAXCONN)),
	)
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	go l.serve()
	return l, nil
}

const acceptPause = 10 * time.Millisecond

// serve has the stream go over the host's last connection.
func (l vsockLink) serve() {
	for {
		conn, from, err := l.accept()
		switch {
		case errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed):
			return
		case err != nil:
			time.Sleep(acceptPause) // it was gone again, or there is no room
		case from != unix.VMADDR_CID_HOST:
			_ = conn.Close() // somebody in here
		default:
			go func() { _ = l.Stream.Serve(conn) }()
		}
	}
}

func (l vsockLink) accept() (conn *os.File, from uint32, err error) {
	raw, err := l.listener.SyscallConn()
	if err != nil {
		return nil, 0, err
	}
	var fd int
	var peer unix.Sockaddr
	var failed error
	err = raw.Read(func(listener uintptr) bool {
		fd, peer, failed = unix.Accept4(int(listener), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		return failed != unix.EAGAIN
	})
	if err = errors.Join(err, failed); err != nil {
		return nil, 0, err
	}
	if vm, is := peer.(*unix.SockaddrVM); is {
		from = vm.CID
	}
	return os.NewFile(uintptr(fd), "vsock"), from, nil
}

func (l vsockLink) Close() error { return errors.Join(l.Stream.Close(), l.listener.Close()) }
