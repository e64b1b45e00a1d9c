package vmm

import "os"

// Saved names the two files of a machine at rest. Template, snapshot, fork and
// suspended VM are all these and the disks, which are the caller's affair.
// Relative paths start at Config.Dir.
type Saved struct {
	Memory string `json:"memory"` // as large as the machine's memory, sparse
	State  string `json:"state"`  // of the devices, and what machine it was; 50 kB for each device

	// Into, if it is given, takes the memory instead of a file named Memory:
	// an empty NewMemory, which need only be sealed for others to be restored from it
	// at once. It is the caller's, and of no use after a failed Save.
	Into *os.File `json:"-"`

	// Pausing, if it is given, is called once from within Save, when what can
	// be done before is done and the vCPUs are about to be halted: the guest
	// stands still from here until Resume has returned.
	Pausing func() `json:"-"`
}

// Source is what a machine is restored from.
type Source struct {
	// Memory is the saved memory. The driver takes a descriptor of its own
	// and leaves this one to the caller. Others restored from the same
	// memory are safe from a VMM that was taken over by its guest only if
	// this is a SealedCopy: a driver may have to give its VMM the right to
	// write. So a file, opened read-write, is for one machine alone, which
	// keeps it unchanged for as long as it runs.
	Memory *os.File

	// State is the path of the state, which Restore reads and then needs no
	// more. A relative one starts at Config.Dir.
	State string
}
