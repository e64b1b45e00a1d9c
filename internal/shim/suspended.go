package shim

import (
	"time"

	"banger/internal/paths"
	"banger/internal/vmm"
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
}

// Sums tell whether what was saved is what it was. A state has its own.
type Sums struct {
	Memory string `json:"memory"` // see vmm.Checksum
}

// ReadSuspended reads the record of a suspended VM; nil where it is not
// suspended.
func ReadSuspended(dir paths.VM) (*Suspended, error) { return nil, nil }
