package shim

import (
	"context"
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"banger"
)

// A pidfd in the runtime's poller costs no thread to wait on.

// sendSignal sends a signal to the process behind a pidfd. One that has ended is
// no error.
func sendSignal(pidfd *os.File, sig syscall.Signal) error {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	if errors.Is(sent, unix.ESRCH) {
		sent = nil
	}
	return errors.Join(err, sent)
}

// ended waits until the process has ended, or until pidfd is closed.
func ended(pidfd *os.File) error {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return n > 0 && err == nil
	})
}

// awaitEnd waits for the end of a process with a bound.
func awaitEnd(ctx context.Context, pidfd *os.File) error {
	stop := context.AfterFunc(ctx, func() { _ = pidfd.Close() })
	defer stop()
	err := ended(pidfd)
	if ctx.Err() != nil {
		return banger.Errorf(banger.Cancelled, "the process did not end in time: %w", ctx.Err())
	}
	return err
}

// reap collects a child that has ended.
func reap(pidfd *os.File) error {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var waited error
	err = raw.Control(func(fd uintptr) {
		waited = unix.Waitid(unix.P_PIDFD, int(fd), nil, unix.WEXITED|unix.WNOHANG, nil)
	})
	return errors.Join(err, waited)
}
