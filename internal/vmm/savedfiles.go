package vmm

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"banger"
)

// SavedFiles are the files of a Save under way, for drivers.
type SavedFiles struct {
	Memory, State *os.File
	made          []*os.File // those that are ours to close, and to remove if the Save fails
}

// SaveInto has save write a machine into the files that a Save of it asks for, and close
// them; of a Save that fails none are left. One that is there already is already_exists.
func SaveInto(cfg Config, to Saved, save func(SavedFiles) error) error {
	files, err := createSaved(cfg, to)
	if err == nil {
		if err = save(files); err != nil {
			_ = files.Close() // perhaps once more
			files.remove()
		}
	}
	return banger.Wrap(err, "cannot save the machine")
}

func createSaved(cfg Config, to Saved) (f SavedFiles, err error) {
	if f.Memory = to.Into; f.Memory == nil {
		if f.Memory, err = f.create(cfg.At(to.Memory)); err != nil {
			return f, err
		}
	}
	if f.State, err = f.create(cfg.At(to.State)); err != nil {
		_ = f.Close()
		f.remove()
	}
	return f, err
}

func (f *SavedFiles) create(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, banger.Errorf(banger.AlreadyExists, "%w", err)
	}
	if err == nil {
		f.made = append(f.made, file)
	}
	return file, err
}

// Close closes the files that were made; once more does no harm.
func (f SavedFiles) Close() (err error) {
	for _, file := range f.made {
		err = errors.Join(err, file.Close())
	}
	return err
}

func (f SavedFiles) remove() {
	for _, file := range f.made {
		_ = os.Remove(file.Name())
	}
}

// WriteOut writes a file's dirty pages, the part of a sync that takes long. It does not flush
// the device, which QEMU does anyway when it halts a machine.
func WriteOut(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.SyncFileRange(int(f.Fd()), 0, 0,
		unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
}
