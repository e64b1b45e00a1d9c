package qemu

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/vmm"
)

// The descriptors QEMU inherits, in this order; its disks follow.
const (
	fdMonitor = 3 + iota
	fdConsole
	fdAgent
	fdDisks
)

// wires holds both ends of everything that joins us to a QEMU.
type wires struct {
	far     []*os.File // QEMU's descriptors 0, 1, 2, …
	log     *os.File
	monitor net.Conn
	console net.Conn
	agent   net.Conn
}

// openWires opens all of them, or none.
func openWires(cfg vmm.Config) (w *wires, err error) {
	w = &wires{}
	defer func() {
		if err != nil {
			w.closeFar()
			w.closeNear()
		}
	}()
	if err := w.openStandard(); err != nil {
		return nil, err
	}
	for _, near := range []*net.Conn{&w.monitor, &w.console, &w.agent} { // the order of the constants
		if *near, err = w.openPair(); err != nil {
			return nil, err
		}
	}
	for _, d := range cfg.Disks {
		if err := w.openDisk(cfg.At(d.Path), d); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// openStandard gives QEMU an empty stdin and one pipe for all it says.
func (w *wires) openStandard() error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	w.far = append(w.far, null)
	log, far, err := os.Pipe()
	if err != nil {
		return err
	}
	w.log = log
	w.far = append(w.far, far, far)
	return nil
}

func (w *wires) openPair() (net.Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	w.far = append(w.far, os.NewFile(uintptr(fds[1]), "far"))
	near := os.NewFile(uintptr(fds[0]), "near")
	defer near.Close() // FileConn has its own
	return net.FileConn(near)
}

// openDisk opens the file with no more rights than the guest is to have: QEMU
// cannot write what it holds read-only.
func (w *wires) openDisk(path string, d vmm.Disk) error {
	flags := os.O_RDWR
	if d.ReadOnly {
		flags = os.O_RDONLY
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return banger.Errorf(banger.Unavailable, "cannot open the disk %s: %w", d.Serial, err)
	}
	w.far = append(w.far, f)
	return nil
}

// closeFar closes our copies of what QEMU holds.
func (w *wires) closeFar() {
	for _, f := range w.far {
		f.Close() // stdout and stderr are one file: the second close does nothing
	}
	w.far = nil
}

func (w *wires) closeNear() {
	if w.log != nil {
		w.log.Close()
	}
	for _, c := range []net.Conn{w.monitor, w.console, w.agent} {
		if c != nil {
			c.Close()
		}
	}
}
