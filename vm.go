package banger

import (
	"strings"
	"time"
)

// VM is one virtual machine as the ledger keeps it.
type VM struct {
	ID            string
	Name          string
	ImageID       string
	GuestIP       string // its address inside network_prefix; the host part is the VM's number
	State         State
	CreatedAt     time.Time
	UpdatedAt     time.Time
	LastTouchedAt time.Time
	Spec          Spec
	Runtime       Runtime
	Stats         Stats
	Workspace     Workspace
}

// Layout is the version of the directory layout that this banger writes. A
// row without one was written by another tool and cannot be started.
const Layout = 1

// Spec is what a VM was asked to be.
type Spec struct {
	Layout    int      `json:"layout,omitempty"`
	VCPU      int      `json:"vcpu"`
	MemoryMiB int64    `json:"memory_mib"`
	DiskBytes int64    `json:"disk_size_bytes"`
	NAT       bool     `json:"nat"`
	Allow     []string `json:"allow,omitempty"`
	Publish   []string `json:"publish,omitempty"`
	Kernel    string   `json:"kernel,omitempty"` // sha256 of the kernel entry it boots
	Init      string   `json:"init,omitempty"`   // "agent" or "systemd"
	Ephemeral bool     `json:"ephemeral,omitempty"`
	Parent    string   `json:"parent,omitempty"`   // id of the VM it was forked from
	Snapshot  string   `json:"snapshot,omitempty"` // id of the snapshot it was last at
	Synced    []string `json:"synced,omitempty"`   // where in it the [[file_sync]] of the time of its creation lies
}

// Defaults of a VM's shape where neither the user, the configuration nor the
// host's size says otherwise.
const (
	DefaultVCPU      = 2
	DefaultMemoryMiB = 2048
	DefaultDisk      = 8 * GiB
	InitAgent        = "agent"
	InitSystemd      = "systemd"
)

// DefaultSpec is the spec a field missing from a stored one is read from.
func DefaultSpec() Spec {
	return Spec{VCPU: DefaultVCPU, MemoryMiB: DefaultMemoryMiB, DiskBytes: DefaultDisk, Init: InitAgent}
}

// NetworkNone is the NetworkMode of a VM from which nothing leaves.
const NetworkNone = "none"

// NetworkMode names the spec's network in one word or phrase: "none", "nat"
// or "allow list".
func (s Spec) NetworkMode() string {
	switch {
	case s.NAT:
		return "nat"
	case len(s.Allow) > 0:
		return "allow list"
	}
	return NetworkNone
}

// NetworkWords says what the VM may reach: "none", "nat", or its rules.
func (s Spec) NetworkWords() string {
	words := s.Allow
	if s.NAT {
		words = append([]string{"nat"}, words...)
	}
	if len(words) == 0 {
		return NetworkNone
	}
	if !s.NAT {
		return "allow " + strings.Join(words, " ")
	}
	return strings.Join(words, " ")
}

// Runtime is what the last start of a VM was given and how its last run
// ended.
type Runtime struct {
	GuestIP   string    `json:"guest_ip,omitempty"` // copy of VM.GuestIP, which wins
	VMM       string    `json:"vmm,omitempty"`      // driver, as in "qemu"
	Accel     string    `json:"accel,omitempty"`    // "kvm" or "tcg"
	StartedAt time.Time `json:"started_at,omitzero"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
	LastError string    `json:"last_error,omitempty"`
	BootCount int       `json:"boot_count,omitempty"`
	Creating  bool      `json:"creating,omitempty"` // its creation was not acknowledged: undone after a crash
	Visited   bool      `json:"visited,omitempty"`  // it runs for somebody who reads its disk, and is ended after a crash
}

// Stats is the last sample of a VM's use of the host and of itself.
type Stats struct {
	SampledAt       time.Time `json:"sampled_at,omitzero"`
	CPUSeconds      float64   `json:"cpu_seconds"`               // host CPU time of the VMM
	ResidentBytes   int64     `json:"resident_bytes"`            // host memory of the VMM
	DiskUsedBytes   int64     `json:"disk_used_bytes"`           // blocks allocated on the host
	GuestSampledAt  time.Time `json:"guest_sampled_at,omitzero"` // when it said what follows, on being asked
	GuestMemTotal   int64     `json:"guest_mem_total"`           // bytes
	GuestMemUsed    int64     `json:"guest_mem_used"`            // bytes
	GuestLoad1      float64   `json:"guest_load1"`               // one-minute load average
	GuestUptimeSecs float64   `json:"guest_uptime_secs"`         // seconds
	GuestProcs      int       `json:"guest_procs"`               // processes
	GuestDiskUsed   int64     `json:"guest_disk_used"`           // bytes used on the writable disk
	GuestDiskTotal  int64     `json:"guest_disk_total"`          // bytes
}

// Phase is a part of a start and how long it took.
type Phase struct {
	Name   string  `json:"name"`
	Millis float64 `json:"ms"`
}

// Workspace records the repository that was brought into a VM.
type Workspace struct {
	GuestPath  string    `json:"guest_path,omitempty"`
	SourcePath string    `json:"source_path,omitempty"`
	HeadCommit string    `json:"head_commit,omitempty"`
	PreparedAt time.Time `json:"prepared_at,omitzero"`
	BaseTree   string    `json:"base_tree,omitempty"` // the tree as brought in
	Mode       string    `json:"mode,omitempty"`
	Branch     string    `json:"branch,omitempty"`
	User       string    `json:"user,omitempty"` // whose the files are in the guest, "" for root

	// How it was asked for, so that it can be brought up to date likewise.
	Untracked bool   `json:"untracked,omitempty"` // files that git does not track came too
	Depth     int    `json:"depth,omitempty"`     // commits of an overlay, 0 for one
	From      string `json:"from,omitempty"`      // what the branch began at, "" for the work tree
}

// IsZero says whether no workspace was ever prepared.
func (w Workspace) IsZero() bool { return w == Workspace{} }

// MostForks is how many copies of a VM can be asked for at once.
const MostForks = 256
