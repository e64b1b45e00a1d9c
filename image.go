package banger

import "time"

// Image is a root file system VMs boot from, read-only and shared.
type Image struct {
	ID                      string
	Name                    string
	Managed                 bool   // lives in banger's own directory
	ArtifactDir             string // directory of a managed image
	RootfsPath              string // ext4 file
	WorkSeedPath            string // ext4 file whose tree fills /root at first boot, or ""
	KernelPath              string
	InitrdPath              string
	ModulesDir              string
	BuildSize               string // least disk size of its VMs, as in "2G", or ""
	SeededSSHKeyFingerprint string // kept for old rows
	CreatedAt               time.Time
	UpdatedAt               time.Time
}

// DefaultImage is the image used where nothing else is named.
const DefaultImage = "debian-bookworm"

// Kernel is one kernel in the kernel directory. Entries are stored by
// content; a name points at one.
type Kernel struct {
	Name       string    `json:"name"`
	Digest     string    `json:"digest"` // sha256 over its files, which names its directory
	Distro     string    `json:"distro"`
	Arch       string    `json:"arch"`    // as in "amd64"
	Release    string    `json:"release"` // uname -r
	Source     string    `json:"source"`  // where it came from, for people
	ImportedAt time.Time `json:"imported_at"`

	Dir           string `json:"-"`              // its directory
	VmlinuzPath   string `json:"-"`              // bzImage
	VmlinuxPath   string `json:"-"`              // uncompressed ELF, for PVH boot
	ModulesPath   string `json:"-"`              // read-only ext4 with lib/modules/RELEASE at its root
	InitrdPath    string `json:"-"`              // banger's initramfs for it
	VmlinuzSHA256 string `json:"vmlinuz_sha256"` // hex
	VmlinuxSHA256 string `json:"vmlinux_sha256"`
	ModulesSHA256 string `json:"modules_sha256"`
	SizeBytes     int64  `json:"size_bytes"` // of all its files
}

// DefaultKernel is the kernel used where nothing else is named.
const DefaultKernel = "debian-cloud"
