package shim

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/paths"
	"banger/internal/vmm"
	"banger/internal/vnet/reach"
)

// Suspended is the machine of a VM that is suspended: record.json beside its
// files.
type Suspended struct {
	At        time.Time  `json:"at"`
	Token     []byte     `json:"token"` // of the host that spoke to the guest last
	Driver    string     `json:"driver"`
	Machine   vmm.Config `json:"machine"`    // as it ran
	SizeBytes int64      `json:"size_bytes"` // of memory and state, holes not counted
	Sums      Sums       `json:"sums"`

	// Answers are the names that the guest was told and may remember.
	Answers []reach.Answer `json:"answers,omitempty"`
}

// Sums tell whether what was saved is what it was. A state has its own.
type Sums struct {
	Memory string `json:"memory"` // see vmm.Checksum
}

const recordName = "record.json"

// ReadSuspended reads the record of a suspended VM; nil where it is not
// suspended. A VM whose record is damaged is suspended and cannot be resumed:
// it has an empty one.
func ReadSuspended(dir paths.VM) (*Suspended, error) {
	if _, err := os.Stat(dir.Suspended()); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	r := &Suspended{}
	text, err := os.ReadFile(filepath.Join(dir.Suspended(), recordName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, banger.Errorf(banger.Internal, "cannot read how the VM was suspended: %w", err)
	}
	if err != nil || json.Unmarshal(text, r) != nil {
		return &Suspended{}, nil
	}
	return r, nil
}

// allocated is what a file takes on disk.
func allocated(f *os.File) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, err
	}
	return st.Blocks * 512, nil
}
