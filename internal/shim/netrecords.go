package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"banger/internal/paths"
	"banger/internal/vnet/reach"
)

// maxNetworkFile is several times what all records of a network take.
const maxNetworkFile = 4 << 20

// recallNetwork has the network's records go on from those of the last shim. Without
// them they begin anew: no VM is worse off for it.
func (s *supervisor) recallNetwork() {
	earlier, err := readRecords(s.dir.Network())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("cannot read what the guest reached before", "error", err)
	}
	s.network.Recall(earlier)
}

// KeptNetwork is what the guest of a VM at rest had reached when its shim ended, the
// latest first: nothing where that left nothing.
func KeptNetwork(dir paths.VM) ([]reach.Record, error) {
	all, err := readRecords(dir.Network())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for n := range all {
		all[n].Open = 0
	}
	return all, err
}

func readRecords(path string) (all []reach.Record, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxNetworkFile+1))
	if err == nil && len(text) > maxNetworkFile {
		err = fmt.Errorf("it has more than %d MiB", maxNetworkFile>>20)
	}
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		return nil, err
	}
	return all, nil
}

// keepNetwork leaves the records to the next shim, where there will be one.
func (s *supervisor) keepNetwork() {
	if s.network == nil || s.launch.Ephemeral {
		return
	}
	all := s.network.Records()
	if len(all) == 0 {
		return
	}
	if err := writeJSON(s.dir.Network(), all); err != nil {
		s.log.Warn("cannot keep what the guest reached", "error", err)
	}
}
