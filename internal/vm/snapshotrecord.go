package vm

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/artifact"
	"banger/internal/layers"
	"banger/internal/paths"
	"banger/internal/vmm"
)

// snapshotRecord is snapshot.json. Beside it lie the files of the disk and,
// where the snapshot has a memory, those of the machine.
type snapshotRecord struct {
	banger.Snapshot
	DiskBytes int64      `json:"disk_size_bytes"`
	Token     []byte     `json:"token,omitempty"`
	Driver    string     `json:"driver,omitempty"`
	Machine   vmm.Config `json:"machine,omitzero"` // as it ran
	MemorySum string     `json:"memory_sum,omitempty"`
}

const snapshotFile = "snapshot.json"

// finish completes the record of what lies in dir, and writes it there.
func (r *snapshotRecord) finish(dir string) (err error) {
	if r.DiskBytes, err = layers.Size(dir); err != nil {
		return err
	}
	r.SizeBytes = allocatedIn(dir)
	return r.write(dir)
}

func (r snapshotRecord) write(dir string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return fileError(artifact.WriteFile(filepath.Join(dir, snapshotFile), append(text, '\n')))
}

func readSnapshot(dir string) (r snapshotRecord, err error) {
	text, err := os.ReadFile(filepath.Join(dir, snapshotFile))
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	return r, fileError(err)
}

// readSnapshots reads all records of a VM, oldest first. One that cannot be
// read is passed over: it is no use to anybody, and goes with the VM.
func readSnapshots(dir paths.VM) (all []snapshotRecord, err error) {
	names, err := namesIn(dir.Snapshots())
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if !banger.IsID(name) {
			continue
		}
		if r, err := readSnapshot(dir.Snapshot(name)); err == nil && r.ID == name {
			all = append(all, r)
		}
	}
	slices.SortStableFunc(all, func(a, b snapshotRecord) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return all, nil
}

// findSnapshot finds a snapshot of a VM by reference.
func findSnapshot(row banger.VM, ref string, all []snapshotRecord) (r snapshotRecord, err error) {
	r, err = banger.Resolve("snapshot", ref, all)
	if banger.CodeOf(err) == banger.NotFound {
		return r, banger.Errorf(banger.NotFound, "it has no snapshot %q", ref).Hint("banger vm snapshot list %s", row.Name)
	}
	return r, err
}

// allocatedIn is how much of what lies in the directories is on the disk, each
// file counted once however many names it has.
func allocatedIn(dirs ...string) (sum int64) {
	type file struct{ dev, ino uint64 }
	seen := map[file]bool{}
	for _, dir := range dirs {
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			var st unix.Stat_t
			if err != nil || !d.Type().IsRegular() || unix.Lstat(path, &st) != nil {
				return nil
			}
			if is := (file{st.Dev, st.Ino}); !seen[is] {
				seen[is] = true
				sum += st.Blocks * 512
			}
			return nil
		})
	}
	return sum
}

// diskUse is what a VM's disk, snapshots and saved machine take on the host:
// all in its directory but logs and records, which are small.
func diskUse(dir paths.VM) int64 { return allocatedIn(string(dir)) }

// exists says whether there is something at path.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// isLayer says whether a file of a VM's directory is a layer of its disk.
func isLayer(name string) bool {
	return strings.HasPrefix(name, "disk.") && strings.HasSuffix(name, ".qcow2")
}
