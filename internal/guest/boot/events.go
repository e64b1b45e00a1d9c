package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// events tells when the kernel has a new device.
type events struct{ fd int }

func listenEvents() (*events, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return &events{fd}, nil
}

// wait blocks until something happened or the deadline passed; it may return
// early. A lost event (ENOBUFS) is an event too.
func (e *events) wait(deadline time.Time) {
	left := time.Until(deadline)
	if left <= 0 {
		return
	}
	if e == nil {
		time.Sleep(min(left, 10*time.Millisecond))
		return
	}
	poll := []unix.PollFd{{Fd: int32(e.fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(poll, int(left.Milliseconds())+1); n > 0 && err == nil {
		var event [4096]byte
		_, _ = unix.Read(e.fd, event[:])
	}
}

// find looks until find succeeds, again at each event, at most for
// deviceDeadline.
func (e *events) find(find func() (string, bool)) (string, bool) {
	for deadline := time.Now().Add(deviceDeadline); ; e.wait(deadline) {
		if found, ok := find(); ok {
			return found, true
		}
		if time.Now().After(deadline) {
			return "", false
		}
	}
}

// disk is the device of the disk with a serial.
func (s *System) disk(serial string) (string, error) {
	dev, ok := s.events.find(func() (string, bool) { return attribute("/sys/block/*/serial", serial) })
	if !ok {
		return "", fmt.Errorf("there is no disk %q", serial)
	}
	return "/dev/" + dev, nil
}

// Port is the device of the virtio port of a name.
func (s *System) Port(name string) (string, error) {
	dev, ok := s.events.find(func() (string, bool) { return attribute("/sys/class/virtio-ports/*/name", name) })
	if !ok {
		return "", fmt.Errorf("there is no virtio port %q", name)
	}
	return "/dev/" + dev, nil
}

// attribute finds the device whose attribute file has a value.
func attribute(pattern, value string) (device string, ok bool) {
	files, _ := filepath.Glob(pattern)
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(text)) == value {
			return filepath.Base(filepath.Dir(file)), true
		}
	}
	return "", false
}

// StopListening frees what finding devices needed.
func (s *System) StopListening() {
	if s.events != nil {
		_ = unix.Close(s.events.fd)
		s.events = nil
	}
}

// ignoring returns err unless it is one of those that are fine.
func ignoring(err error, fine ...error) error {
	for _, f := range fine {
		if errors.Is(err, f) {
			return nil
		}
	}
	return err
}
