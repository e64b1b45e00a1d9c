package vm

import (
	"context"
	"path/filepath"

	"banger"
	"banger/internal/paths"
	"banger/internal/shim"
	"banger/internal/vmm"
)

// Saved is a machine that lies saved in a VM's directory.
type Saved struct {
	Snapshot banger.Snapshot // zero for the memory of a suspended VM
	dir, sum string
}

// SavedMachines lists what is saved with a memory in a VM's directory.
func SavedMachines(dir paths.VM) (all []Saved, err error) {
	records, err := readSnapshots(dir)
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		if r.Memory {
			all = append(all, Saved{r.Snapshot, dir.Snapshot(r.ID), r.MemorySum})
		}
	}
	was, err := shim.ReadSuspended(dir)
	if err == nil && was != nil {
		all = append(all, Saved{dir: dir.Suspended(), sum: was.Sums.Memory})
	}
	return all, err
}

// Verify reads all of a saved machine and compares it with what was saved.
func (s Saved) Verify(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := vmm.ReadState(filepath.Join(s.dir, stateFile)); err != nil {
		return damaged(err)
	}
	sum, err := checksum(filepath.Join(s.dir, memoryFile))
	if err != nil || sum != s.sum {
		return damaged(err)
	}
	return nil
}
