// Package template keeps machines that were booted once, warmed up and saved,
// so that a VM of the same shape is forked from one instead of booting.
//
// It holds the cache, the memories of templates in use, and the maker. All of
// it may be deleted at any time: what is missing is made again, and no VM
// needs it once it runs. The package knows nothing of rows, shims or VMs.
package template

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"time"

	"banger"
	"banger/internal/vmm"
)

// format is raised when machines saved by an older banger cannot be taken up:
// when a driver gives its VMM another command line, for example.
const format = 5

// smallDisk is the size of the disk of templates for disks below the default.
const smallDisk = 1 << 30

// DiskFor is the size of the disk of the template for a VM whose disk has size
// bytes: there are two. To enlarge a disk costs a fork up to a third of its
// whole start, and an empty one takes next to nothing on the host whatever its
// size; so the usual size needs no enlarging.
func DiskFor(size int64) int64 {
	if size >= banger.DefaultDisk {
		return banger.DefaultDisk
	}
	return smallDisk
}

// Key is everything that makes the machine of one start the machine of
// another. Of the size of the VM's disk, which grows, there is only the
// template's in it.
type Key struct {
	Format    int       `json:"format"`
	Image     string    `json:"image"`     // digest of the root file system
	Kernel    string    `json:"kernel"`    // digest of the kernel entry
	Initramfs string    `json:"initramfs"` // digest
	Cmdline   string    `json:"cmdline"`   // our part of the kernel's
	Init      string    `json:"init"`      //
	VCPU      int       `json:"vcpu"`
	MemoryMiB int64     `json:"memory_mib"`
	DiskBytes int64     `json:"disk_bytes"` // as DiskFor gives it
	Driver    string    `json:"driver"`
	Accel     vmm.Accel `json:"accel"`
	VMM       File      `json:"vmm"`
	CPU       string    `json:"cpu"` // model of the host's
}

// File stands for the content of a file without reading it.
type File struct {
	Path    string    `json:"path"`
	Size    int64     `json:"size"`
	ModTime time.Time `json:"mtime"`
}

// ID names the template of a key: 32 hex digits.
func (k Key) ID() string {
	k.Format = format
	text, err := json.Marshal(k)
	if err != nil {
		panic(err) // strings and numbers cannot fail
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// Template is a saved machine in the cache: template.json and where it lies.
type Template struct {
	Key       Key       `json:"key"`
	Token     []byte    `json:"token"` // of the host that spoke to its guest last
	Sums      Sums      `json:"sums"`
	Size      int64     `json:"size_bytes"` // blocks on the host
	CreatedAt time.Time `json:"created_at"`

	ID     string    `json:"-"`
	Dir    string    `json:"-"`
	UsedAt time.Time `json:"-"` // the last time it was forked
}

// Sums tell whether the files are what was saved.
type Sums struct {
	Memory string `json:"memory"`
	State  string `json:"state"`
	Disk   string `json:"disk"`
}

// The files of a template.
const (
	recordName = "template.json"
	memoryName = "memory"
	stateName  = "state"
	diskName   = "disk.ext4"
)

// Memory, State and Disk are the paths of a template's files.
func (t Template) Memory() string { return filepath.Join(t.Dir, memoryName) }
func (t Template) State() string  { return filepath.Join(t.Dir, stateName) }
func (t Template) Disk() string   { return filepath.Join(t.Dir, diskName) }

func (t Template) record() string { return filepath.Join(t.Dir, recordName) }
