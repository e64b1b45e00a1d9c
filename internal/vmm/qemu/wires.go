package qemu

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"banger/internal/vmm"
)

// The descriptors QEMU inherits, in this order. The files of the disks of a
// machine that boots follow.
const (
	fdMonitor = 3 + iota
	fdConsole
	fdAgent
	fdCable
	fdDevices
	fdDisks
)

// A machine that is restored gets these before its disks.
const (
	fdMemory = fdDisks + iota
	fdState
	fdRestoredDisks
)

// wires holds both ends of everything that joins us to a QEMU.
type wires struct {
	far     []*os.File // QEMU's descriptors 0, 1, 2, …
	log     *os.File
	monitor net.Conn
	console net.Conn
	agent   net.Conn
	cable   net.Conn
	devices deviceFile
	tops    map[string]top // of the disks

	// For a machine that is restored.
	base  *os.File // the saved memory
	state *os.File // where the devices' state is read from
}

// openWires opens all a machine needs that boots, or nothing.
func openWires(cfg vmm.Config) (*wires, error) {
	w := &wires{}
	err := w.openCommon()
	if err == nil {
		err = w.openDisks(cfg, fdDisks)
	}
	return w.orNothing(err)
}

// openRestoreWires opens all a machine needs that is restored, or nothing.
// QEMU reads its devices' state from the far end of the pipe.
func openRestoreWires(cfg vmm.Config, memory *os.File) (*wires, error) {
	w := &wires{}
	err := w.openCommon()
	if err == nil {
		err = w.openState(memory)
	}
	if err == nil {
		err = w.openDisks(cfg, fdRestoredDisks)
	}
	return w.orNothing(err)
}

func (w *wires) orNothing(err error) (*wires, error) {
	if err != nil {
		w.closeFar()
		w.closeNear()
		return nil, err
	}
	return w, nil
}

// openCommon opens what every machine has.
func (w *wires) openCommon() (err error) {
	if err := w.openStandard(); err != nil {
		return err
	}
	for _, near := range []*net.Conn{&w.monitor, &w.console, &w.agent, &w.cable} { // the order of the constants
		if *near, err = w.openPair(); err != nil {
			return err
		}
	}
	return w.openDevices()
}

// openDevices makes a file in RAM that QEMU can only write to. QEMU keeps its
// descriptor, so that the end of a pipe would not show.
func (w *wires) openDevices() error {
	fd, err := unix.MemfdCreate("banger-devices", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("memfd_create: %w", err)
	}
	w.devices.read = os.NewFile(uintptr(fd), "device state")
	w.devices.write, err = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	far, err := duplicate(w.devices.write)
	if err != nil {
		return err
	}
	w.far = append(w.far, far)
	return nil
}

// deviceFile is what QEMU writes when it saves its devices. It goes on where
// the write descriptor stands, which it shares with us; asking for O_APPEND is
// no help, since QEMU takes it away.
type deviceFile struct{ read, write *os.File }

func (f deviceFile) rewind() error {
	_, err := f.write.Seek(0, io.SeekStart)
	return errors.Join(err, f.write.Truncate(0))
}

func (f deviceFile) close() {
	f.read.Close()
	f.write.Close()
}

func (w *wires) openState(memory *os.File) (err error) {
	if w.base, err = duplicate(memory); err != nil {
		return err
	}
	its, err := duplicate(memory)
	if err != nil {
		return err
	}
	w.far = append(w.far, its)
	far, near, err := os.Pipe()
	if err != nil {
		return err
	}
	w.far = append(w.far, far)
	w.state = near
	return nil
}

// duplicate gives a descriptor of our own for what f is.
func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("cannot duplicate the descriptor of %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
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

// closeFar closes our copies of what QEMU holds.
func (w *wires) closeFar() {
	for _, f := range w.far {
		f.Close() // stdout and stderr are one file: the second close does nothing
	}
	w.far = nil
}

func (w *wires) closeNear() {
	for _, f := range []*os.File{w.log, w.devices.read, w.devices.write, w.base, w.state} {
		if f != nil {
			f.Close()
		}
	}
	for _, c := range []net.Conn{w.monitor, w.console, w.agent, w.cable} {
		if c != nil {
			c.Close()
		}
	}
}
