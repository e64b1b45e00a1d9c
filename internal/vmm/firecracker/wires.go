package firecracker

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/vmm"
)

// The descriptors Firecracker inherits, in this order: standard ones, files in RAM into which
// it saves memory and state, the memory and the state it is restored from, and the disks.
const (
	fdConsole = 1 + iota
	fdLog
	fdSaveMemory
	fdSaveState
	fdMemory
	fdState
	fdDisks
)

// saved is what a machine is restored from.
type saved struct {
	memory *os.File // nil for a machine that boots
	state  []byte   // Firecracker's
}

// wires holds both ends of what joins us to a Firecracker.
type wires struct {
	far     []*os.File // its descriptors 0, 1, 2, …
	console *os.File
	log     *os.File
	memory  *os.File // what it saves into
	state   *os.File
	base    *os.File         // what it was restored from, or nil
	sizes   map[string]int64 // of the disks
}

// openWires opens all a machine needs, or nothing.
func openWires(cfg vmm.Config, from saved) (w *wires, err error) {
	w = &wires{sizes: map[string]int64{}}
	err = errors.Join(w.openStandard(), w.openSaving(), w.openSaved(from), w.openDisks(cfg))
	if err != nil {
		w.closeFar()
		w.closeNear()
		return nil, err
	}
	return w, nil
}

func (w *wires) give(f *os.File, err error) error {
	if err == nil {
		w.far = append(w.far, f)
	}
	return err
}

func (w *wires) openStandard() (err error) {
	if err := w.give(os.Open(os.DevNull)); err != nil {
		return err
	}
	for _, near := range []**os.File{&w.console, &w.log} {
		var far *os.File
		if *near, far, err = os.Pipe(); err != nil {
			return err
		}
		w.far = append(w.far, far)
	}
	return nil
}

// openSaving makes the files that Firecracker saves into. It cannot be given any later, and
// is to need no right to make files.
func (w *wires) openSaving() (err error) {
	for _, near := range []**os.File{&w.memory, &w.state} {
		if *near, err = vmm.NewMemory(); err != nil {
			return err
		}
		if err := w.give(duplicate(*near)); err != nil {
			return err
		}
	}
	return nil
}

// openSaved gives what a machine is restored from, or what holds the numbers' place.
func (w *wires) openSaved(from saved) (err error) {
	if from.memory == nil {
		return errors.Join(w.give(os.Open(os.DevNull)), w.give(os.Open(os.DevNull)))
	}
	if w.base, err = duplicate(from.memory); err != nil {
		return err
	}
	if err := w.give(duplicate(from.memory)); err != nil {
		return err
	}
	state, err := vmm.NewMemory()
	if err != nil {
		return err
	}
	w.far = append(w.far, state)
	_, err = state.Write(from.state)
	return err
}

// openDisks opens the disks with no more rights than the guest is to have: Firecracker, which opens
// them again, gets no others.
func (w *wires) openDisks(cfg vmm.Config) error {
	for _, d := range cfg.Disks {
		flags := os.O_RDWR
		if d.ReadOnly {
			flags = os.O_RDONLY
		}
		f, err := os.OpenFile(cfg.At(d.Path), flags, 0)
		if err := w.give(f, err); err != nil {
			return banger.Errorf(fileCode(err), "cannot open the disk %s: %w", d.Serial, err)
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		w.sizes[d.Serial] = info.Size()
	}
	return nil
}

// fileCode tells a file that is not there from one that cannot be used.
func fileCode(err error) banger.Code {
	if errors.Is(err, os.ErrNotExist) {
		return banger.NotFound
	}
	return banger.Unavailable
}

// duplicate gives a descriptor of our own for what f is.
func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("cannot duplicate the descriptor of %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// closeFar closes our copies of what Firecracker holds.
func (w *wires) closeFar() {
	for _, f := range w.far {
		_ = f.Close()
	}
	w.far = nil
}

func (w *wires) closeNear() {
	for _, f := range []*os.File{w.console, w.log, w.memory, w.state, w.base} {
		if f != nil {
			_ = f.Close()
		}
	}
}
