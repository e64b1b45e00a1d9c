package shim

import (
	"banger/internal/vmm"
)

// SaveRequest is where a machine is saved.
type SaveRequest struct {
	// Dir is an existing directory. It takes a file "state", the files of
	// the disk, and "memory" unless that goes elsewhere. An absolute path.
	Dir string `json:"dir"`
	// Memory is the path of an empty file that takes the memory, as in
	// /proc/PID/fd/N of a file without a name; "" for one in Dir.
	Memory string `json:"memory,omitempty"`
}

// Saved is what a Restore needs beside the files.
type Saved struct {
	Token       []byte     `json:"token"`        // of the host that spoke to the guest last
	PauseMillis float64    `json:"pause_millis"` // how long the VM stood still
	Driver      string     `json:"driver"`
	Machine     vmm.Config `json:"machine"` // as it ran
}
