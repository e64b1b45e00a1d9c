package guest

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"banger/internal/guest/boot"
	"banger/internal/guestwire"

	"golang.org/x/sys/unix"
)

// portName is what the host calls the virtio port of the agent.
const portName = "banger.agent"

// port is a virtio port, read and written by plain blocking calls: an idle
// guest must not poll.
type port int

func openPort(path string) (port, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	return port(fd), err
}

// Read waits for the host. While the host's side is not connected the port
// reads as ended, which is so for a moment when it was just found.
func (p port) Read(b []byte) (int, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, time.Second) {
		n, err := unix.Read(int(p), b)
		switch {
		case n > 0:
			return n, nil
		case err != nil && err != unix.EINTR:
			return 0, err
		}
		time.Sleep(pause)
	}
}

// Write writes all; the port takes 32 KiB at a time.
func (p port) Write(b []byte) (written int, err error) {
	for written < len(b) {
		n, err := unix.Write(int(p), b[written:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return written, err
		}
		written += n
	}
	return written, nil
}

func (p port) Close() error { return unix.Close(int(p)) }

// openLink finds the link to the host: a virtio port, or vsock where the VMM has that.
func openLink(sys *boot.System) (func() (io.ReadWriteCloser, error), error) {
	if port, given := sys.VsockPort(); given {
		return func() (io.ReadWriteCloser, error) { return listenVsock(port) }, nil
	}
	path, err := sys.Port(portName)
	return func() (io.ReadWriteCloser, error) { return openPort(path) }, err
}

// serveLink answers the host for ever. The reader keeps one thread.
func serveLink(open func() (io.ReadWriteCloser, error), handle func(*guestwire.Stream)) {
	runtime.LockOSThread()
	for said := ""; ; {
		link, err := open()
		if err == nil {
			err = guestwire.Serve(link, true, handle)
		}
		if now := fmt.Sprint(err); now != said { // on the console, once
			fmt.Fprintln(os.Stderr, "banger: the link to the host:", err)
			said = now
		}
		time.Sleep(time.Second)
	}
}
