package guest

import (
	"fmt"
	"os"

	"banger/internal/guestwire"

	"golang.org/x/sys/unix"
)

// connectTerminal makes a pty; the child has its other end three times.
func (c *command) connectTerminal(r guestwire.Exec) ([]uintptr, error) {
	c.ended = make(chan *output, 1)
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("no pty: %w", err)
	}
	c.terminal = os.NewFile(uintptr(fd), "pty")
	c.addOutput(guestwire.Stdout, c.terminal)
	if r.Stdin {
		c.stdin = c.terminal
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, fmt.Errorf("no pty: %w", err)
	}
	// Opened by its number, so that it is ours whatever /dev/pts shows.
	const flags = unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC
	their, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, flags)
	if errno != 0 {
		return nil, fmt.Errorf("no pty: %w", errno)
	}
	if r.Rows > 0 && r.Cols > 0 {
		err = setSize(c.terminal, r.Rows, r.Cols)
	}
	return []uintptr{their, their, their}, err
}

func setSize(f *os.File, rows, cols uint16) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
	if cerr != nil {
		return cerr
	}
	return err
}

// endTerminalInput types what ends input on a terminal: closing the master
// would hang up.
func (c *command) endTerminalInput() {
	if c.stream.Err() == nil {
		_, _ = c.terminal.Write([]byte{4}) // VEOF
	}
}
