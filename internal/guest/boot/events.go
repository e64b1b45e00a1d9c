package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
	find := func() (string, bool) { return attribute("/sys/block/*/serial", serial) }
	missing := func() error { return fmt.Errorf("there is no disk %q", serial) }
	if order, given := s.cmdline["banger.disks"]; given {
		serials := strings.Split(order, ",")
		find = func() (string, bool) { return diskInOrder("/sys/block", serials, serial) }
		missing = func() error {
			return fmt.Errorf("there is no disk %q: %d disks are there, and %q should be", serial, len(disksByPlace("/sys/block")), serials)
		}
	}
	dev, ok := s.events.find(find)
	if !ok {
		return "", missing()
	}
	return "/dev/" + dev, nil
}

// diskInOrder finds a disk where the VMM gives them no serials, and its driver tells in which
// order they are plugged in. It finds none before all are there.
func diskInOrder(dir string, serials []string, serial string) (device string, ok bool) {
	there, i := disksByPlace(dir), slices.Index(serials, serial)
	if i < 0 || len(there) != len(serials) {
		return "", false
	}
	return there[i], true
}

// disksByPlace lists the virtio disks by where they are plugged in. Their names say only when the
// kernel came to them.
func disksByPlace(dir string) []string {
	links, _ := filepath.Glob(filepath.Join(dir, "vd*"))
	var places []string
	for _, link := range links {
		if place, err := filepath.EvalSymlinks(link); err == nil {
			places = append(places, place)
		}
	}
	slices.Sort(places)
	var names []string
	for _, place := range places {
		names = append(names, filepath.Base(place))
	}
	return names
}

// VsockPort is where the host looks for its agent, where the VMM's link is vsock and no
// virtio port.
func (s *System) VsockPort() (port uint32, given bool) {
	n, err := strconv.ParseUint(s.cmdline["banger.vsock"], 10, 32)
	return uint32(n), err == nil
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
