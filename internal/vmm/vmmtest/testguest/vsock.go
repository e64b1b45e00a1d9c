package main

import (
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"banger/internal/tether"
)

// openVsock gives a stream for which the host connects to a port.
func openVsock(port string) (io.ReadWriter, error) {
	n, err := strconv.ParseUint(port, 10, 32)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: uint32(n)}); err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, 16); err != nil {
		return nil, err
	}
	s := tether.NewGuest()
	go func() {
		for {
			conn, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			if err == nil {
				go s.Serve(os.NewFile(uintptr(conn), "vsock"))
			}
		}
	}()
	return s, nil
}
