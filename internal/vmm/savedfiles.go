package vmm

import (
	"errors"
	"os"

	"banger"
)

// SavedFiles are the files of a Save under way, for drivers.
type SavedFiles struct {
	Memory, State *os.File
	made          []*os.File // those that are ours to close, and to remove if the Save fails
}

// CreateSaved makes the files that a Save of this machine asks for; one that is
// there already is already_exists.
func CreateSaved(cfg Config, to Saved) (f SavedFiles, err error) {
	if f.Memory = to.Into; f.Memory == nil {
		if f.Memory, err = f.create(cfg.At(to.Memory)); err != nil {
			return f, err
		}
	}
	if f.State, err = f.create(cfg.At(to.State)); err != nil {
		_ = f.Close()
		f.Remove()
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

// Remove takes away the files that were made.
func (f SavedFiles) Remove() {
	for _, file := range f.made {
		_ = os.Remove(file.Name())
	}
}
