package api

import (
	"encoding/json"
	"time"

	"banger"
)

// Version says which build answers.
type Version struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	BuildID string `json:"build_id" doc:"identifies the binary; builds with the same id are interchangeable"`
	BuiltAt string `json:"built_at"`
	PID     int    `json:"pid"`
	State   string `json:"state_dir"`
	Socket  string `json:"socket"`
}

// VM is a VM as it is now: its row, joined with what was observed.
type VM struct {
	ID            string           `json:"id"`
	Name          string           `json:"name"`
	State         banger.State     `json:"state" doc:"observed, not remembered"`
	LastError     string           `json:"last_error,omitempty"`
	Image         string           `json:"image" doc:"name of the image, or its id where the image is gone"`
	ImageID       string           `json:"image_id"`
	GuestIP       string           `json:"guest_ip"`
	HostAddress   string           `json:"host_address,omitempty" doc:"of its own on the host, where its ports are while it runs"`
	Network       string           `json:"network" doc:"none, allow list or nat"`
	Spec          banger.Spec      `json:"spec"`
	Runtime       banger.Runtime   `json:"runtime"`
	Stats         banger.Stats     `json:"stats"`
	Workspace     banger.Workspace `json:"workspace"`
	Isolation     []string         `json:"isolation" doc:"what confines the VMM, as in force"`
	Dir           string           `json:"dir" doc:"its directory; the shim's socket is inside"`
	ShimPID       int              `json:"shim_pid,omitempty"`
	VMMPID        int              `json:"vmm_pid,omitempty"`
	BootID        string           `json:"boot_id,omitempty" doc:"of the guest kernel"`
	GuestKernel   string           `json:"guest_kernel,omitempty" doc:"uname -r"`
	Parent        string           `json:"parent,omitempty" doc:"id of the VM it was forked from"`
	Template      string           `json:"template,omitempty" doc:"id of the template its present boot is a fork of"`
	Restored      string           `json:"restored,omitempty" doc:"what its present boot took up: template, suspended, fork; empty for a boot from the start"`
	NotRestored   string           `json:"not_restored,omitempty" doc:"why it is a boot from the start although there was something to take up"`
	Trace         []banger.Phase   `json:"trace,omitempty" doc:"where the time of its start went"`
	Foreign       bool             `json:"foreign,omitempty" doc:"written by another tool: can be shown and deleted only"`
	CreatedAt     time.Time        `json:"created_at"`
	UpdatedAt     time.Time        `json:"updated_at"`
	LastTouchedAt time.Time        `json:"last_touched_at"`
}

// RefID and RefName let a VM be found by reference.
func (v VM) RefID() string   { return v.ID }
func (v VM) RefName() string { return v.Name }

// CreateVM asks for a VM. Zero values mean the configured default.
type CreateVM struct {
	Name      string   `json:"name,omitempty" doc:"generated when empty"`
	Image     string   `json:"image,omitempty"`
	Kernel    string   `json:"kernel,omitempty"`
	VCPU      int      `json:"vcpu,omitempty"`
	MemoryMiB int64    `json:"memory_mib,omitempty"`
	DiskBytes int64    `json:"disk_size_bytes,omitempty"`
	NAT       *bool    `json:"nat,omitempty"`
	Allow     []string `json:"allow,omitempty"`
	Publish   []string `json:"publish,omitempty"`
	Init      string   `json:"init,omitempty"`
	Cold      bool     `json:"cold,omitempty" doc:"boot without a template"`
	Ephemeral bool     `json:"ephemeral,omitempty" doc:"goes when its owner's stream ends"`
	Start     bool     `json:"start,omitempty" doc:"start it and wait until its shim answers; the guest may still be booting"`
	Wait      bool     `json:"wait,omitempty" doc:"with start: wait until the guest is ready too"`

	Access banger.Access `json:"access,omitzero" doc:"to pull the image with"`
}

// StartVM starts a VM.
type StartVM struct {
	Cold bool `json:"cold,omitempty"`
	Wait bool `json:"wait,omitempty" doc:"wait until the guest is ready"`
}

// StopVM stops a VM.
type StopVM struct {
	TimeoutSeconds float64 `json:"timeout_seconds,omitempty" minimum:"0" maximum:"86400" doc:"default 10; processes get TERM at once, KILL at half of it"`
}

// ForkVM asks for copies of a VM.
type ForkVM struct {
	Count     int    `json:"count,omitempty" minimum:"0" doc:"default 1"`
	Prefix    string `json:"prefix,omitempty" doc:"they are called PREFIX-1 and so on; default the VM's own name"`
	Ephemeral bool   `json:"ephemeral,omitempty" doc:"they go when their owner's stream ends"`
}

// Forks are the copies that were made.
type Forks struct {
	VMs         []VM    `json:"vms"`
	PauseMillis float64 `json:"pause_ms" doc:"how long the VM stood still for it; 0 where it did not run"`
}

// CreateSnapshot asks for a snapshot.
type CreateSnapshot struct {
	Name string `json:"name,omitempty" doc:"of the time when empty"`
}

// RestoreSnapshot takes a VM back to a snapshot.
type RestoreSnapshot struct {
	Force bool `json:"force,omitempty" doc:"also when the VM runs, which loses what it is now"`
}

// KillVM signals a VMM.
type KillVM struct {
	Signal string `json:"signal,omitempty" enum:"KILL,TERM,INT" doc:"default KILL"`
}

// ChangeVM changes what is not null.
type ChangeVM struct {
	Name      *string `json:"name,omitempty"`
	Ephemeral *bool   `json:"ephemeral,omitempty" doc:"false keeps a VM that was to go"`

	Workspace *banger.Workspace `json:"workspace,omitempty" doc:"the repository that was brought in"`
}

// SetVM changes what is not null or zero.
type SetVM struct {
	VCPU      int      `json:"vcpu,omitempty" minimum:"0"`
	MemoryMiB int64    `json:"memory_mib,omitempty" minimum:"0"`
	DiskBytes int64    `json:"disk_size_bytes,omitempty" minimum:"0" doc:"a disk only grows"`
	NAT       *bool    `json:"nat,omitempty"`
	NoAllow   bool     `json:"no_allow,omitempty" doc:"forget all rules, those of allow not"`
	Allow     []string `json:"allow,omitempty" doc:"more rules"`
	DryRun    bool     `json:"dry_run,omitempty" doc:"only say what would change"`
}

// ChangedVM is a VM and what changed of it.
type ChangedVM struct {
	VM       VM       `json:"vm"`
	Changes  []string `json:"changes" doc:"one line each"`
	Warnings []string `json:"warnings"`
}

// Network is what a guest may reach, reached and was refused since its start.
type Network struct {
	VM           string        `json:"vm"`
	NAT          bool          `json:"nat"`
	Allow        []string      `json:"allow"`
	Destinations []Destination `json:"destinations" doc:"the latest first"`
	Counters     any           `json:"counters" doc:"what was dropped or refused, by technique"`
	Learned      []string      `json:"learned" doc:"the rules that everything so far needed"`
}

// Destination is what is known of one place a guest asked for.
type Destination struct {
	Protocol      string    `json:"protocol" enum:"tcp,udp,icmp,dns"`
	Name          string    `json:"name,omitempty" doc:"by which the guest knew the address"`
	Address       string    `json:"address,omitempty"`
	Port          uint16    `json:"port,omitempty"`
	Open          int       `json:"open" doc:"connections now"`
	Allowed       uint64    `json:"allowed"`
	Refused       uint64    `json:"refused"`
	Failed        uint64    `json:"failed" doc:"allowed, but nobody was there"`
	SentBytes     uint64    `json:"sent_bytes"`
	ReceivedBytes uint64    `json:"received_bytes"`
	Why           string    `json:"why,omitempty" doc:"of the latest refusal"`
	Rule          string    `json:"rule,omitempty" doc:"what --allow opens it, if anything does"`
	First         time.Time `json:"first"`
	Last          time.Time `json:"last"`
}

// SSH is what an SSH client of a VM needs.
type SSH struct {
	SSHKeys
	VM      VM     `json:"vm"`
	HostKey string `json:"host_key" doc:"file of the VM's private key"`
}

// SSHKeys are the keys of all VMs.
type SSHKeys struct {
	KnownHosts string `json:"known_hosts" doc:"file that pins VMs' keys as banger-ID and by their names"`
	Identity   string `json:"identity" doc:"file of the user's private key"`
	UserKey    string `json:"user_key" doc:"its public half, the only key that VMs let in"`
}

// Image is an image with what uses it.
type Image struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Managed    bool   `json:"managed"`
	Digest     string `json:"digest" doc:"sha256:HEX of the root file system"`
	Source     string `json:"source"`
	RootfsPath string `json:"rootfs_path"`
	SizeBytes  int64  `json:"size_bytes"`

	ArtifactDir string `json:"artifact_dir,omitempty" doc:"what banger keeps of it"`
	KernelPath  string `json:"kernel_path,omitempty" doc:"of its own kernel, as it was given"`
	InitrdPath  string `json:"initrd_path,omitempty" doc:"only recorded"`
	ModulesDir  string `json:"modules_dir,omitempty"`

	WorkSeedPath   string `json:"work_seed_path,omitempty" doc:"of the file system whose tree fills /root when a VM first boots"`
	WorkSeedDigest string `json:"work_seed_digest,omitempty" doc:"sha256:HEX of it"`
	WorkSeedBytes  int64  `json:"work_seed_bytes,omitempty"`

	BuildSize  string    `json:"build_size,omitempty" doc:"least disk size of its VMs"`
	Kernel     string    `json:"kernel,omitempty" doc:"digest of the kernel its VMs boot where none is asked for"`
	Ref        string    `json:"ref,omitempty" doc:"of an image of a registry"`
	Manifest   string    `json:"manifest,omitempty" doc:"its digest"`
	Env        []string  `json:"env,omitempty" doc:"of commands run in it"`
	WorkDir    string    `json:"work_dir,omitempty"`
	User       string    `json:"user,omitempty" doc:"who runs commands that name nobody; empty is root"`
	Entrypoint []string  `json:"entrypoint,omitempty" doc:"only shown: nothing runs it"`
	Cmd        []string  `json:"cmd,omitempty" doc:"only shown: nothing runs it"`
	UsedBy     []string  `json:"used_by" doc:"names of VMs"`
	CreatedAt  time.Time `json:"created_at"`
	UpdatedAt  time.Time `json:"updated_at"`
}

// RefID and RefName let an Image be found by reference.
func (i Image) RefID() string   { return i.ID }
func (i Image) RefName() string { return i.Name }

// PullImage asks for an image of the catalogue or of a registry.
type PullImage struct {
	Ref     string `json:"ref" minLength:"1"`
	Name    string `json:"name,omitempty" doc:"default: made of the reference"`
	Size    string `json:"size,omitempty" doc:"least disk size of its VMs"`
	OwnUser bool   `json:"own_user,omitempty" doc:"commands run as the user the image names, not as root"`
	Force   bool   `json:"force,omitempty" doc:"get it again"`
	ImageKernel
	Access banger.Access `json:"access,omitzero"`
}

// RegisterImage makes an image of a person's own file, by absolute path.
type RegisterImage struct {
	Name   string `json:"name"`
	Rootfs string `json:"rootfs" minLength:"1" doc:"an ext4 file, which stays where it is and is never written"`
	// WorkSeed is an absolute path too.
	WorkSeed string `json:"work_seed,omitempty" doc:"another one, whose tree fills /root when a VM first boots"`
	ImageKernel
}

// ImportImage makes an image of a pack.
type ImportImage struct {
	Path string `json:"path" minLength:"1"`
	Name string `json:"name,omitempty" doc:"default: the one in the pack"`
}

// ExportImage writes a pack.
type ExportImage struct {
	Path string `json:"path" minLength:"1"`
}

// CommitImage makes an image of a stopped VM.
type CommitImage struct {
	Name          string `json:"name" minLength:"1"`
	WithWorkspace bool   `json:"with_workspace,omitempty" doc:"also the repository that was brought in"`
}

// ChangeImage gives an image another name.
type ChangeImage struct {
	Name string `json:"name" minLength:"1"`
}

// ImageKernel is what an image's VMs boot: a kernel of the store, or one taken
// from files by absolute path. Without either it is the configured one.
type ImageKernel struct {
	KernelRef string `json:"kernel_ref,omitempty"`
	Kernel    string `json:"kernel,omitempty"`
	Initrd    string `json:"initrd,omitempty" doc:"only recorded"`
	Modules   string `json:"modules,omitempty"`
}

// PruneCache removes what can be made again.
type PruneCache struct {
	DryRun bool `json:"dry_run,omitempty" doc:"only say what would go"`
}

// Pruned is what went, or would go.
type Pruned struct {
	Templates  []Template `json:"templates"`
	Blobs      int        `json:"blobs" doc:"layers of images"`
	BlobBytes  int64      `json:"blob_bytes"`
	FreedBytes int64      `json:"freed_bytes"`
}

// Template is a saved machine that VMs are forked from.
type Template struct {
	ID        string    `json:"id"`
	Image     string    `json:"image" doc:"digest"`
	VCPU      int       `json:"vcpu"`
	MemoryMiB int64     `json:"memory_mib"`
	SizeBytes int64     `json:"size_bytes" doc:"on the host's disk"`
	UsedAt    time.Time `json:"used_at"`
}

// Kernel is a kernel entry, or one that could be pulled.
type Kernel struct {
	banger.Kernel
	State  string   `json:"state" enum:"installed,available"`
	Path   string   `json:"path,omitempty"`
	UsedBy []string `json:"used_by" doc:"names of VMs, and of images as in 'image NAME'"`
}

// PullKernel asks for a kernel of the catalogue, or that of an image of a registry.
type PullKernel struct {
	Name   string        `json:"name" minLength:"1" doc:"a name, or the reference of an image"`
	As     string        `json:"as,omitempty" doc:"what to call the kernel of an image"`
	Force  bool          `json:"force,omitempty"`
	Access banger.Access `json:"access,omitzero" doc:"to the registry"`
}

// ImportKernel takes a kernel from files of the user's, by absolute path.
type ImportKernel struct {
	Name    string `json:"name"`
	From    string `json:"from,omitempty" doc:"a directory with vmlinuz and modules"`
	Vmlinuz string `json:"vmlinuz,omitempty"`
	Modules string `json:"modules,omitempty"`
	Distro  string `json:"distro,omitempty"`
	Arch    string `json:"arch,omitempty"`
}

// Health is whether a guest works.
type Health struct {
	State         banger.State `json:"state"`
	UptimeSeconds float64      `json:"uptime_seconds"`
	Problems      []string     `json:"problems"`
}

// Operation is long work under way, or done a short while ago.
type Operation struct {
	ID        string    `json:"id"`
	Kind      string    `json:"kind" doc:"as in vm.create"`
	Subject   string    `json:"subject"`
	Stage     string    `json:"stage"`
	State     string    `json:"state" enum:"running,done,failed,cancelled"`
	Error     *Problem  `json:"error,omitempty"`
	StartedAt time.Time `json:"started_at"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
}

// StopDaemon ends the daemon; VMs go on.
type StopDaemon struct {
	Force bool `json:"force,omitempty" doc:"cancel operations that run"`
}

// Setting is one key of the configuration.
type Setting struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Origin string `json:"origin" doc:"default, host, or the file with its line"`
}

// Config is the configuration in force.
type Config struct {
	File     string    `json:"file"`
	Settings []Setting `json:"settings"`
	Warnings []string  `json:"warnings"`
}

// Event is one line of an operation's stream (application/x-ndjson). The last
// line has Result or Error. An operation whose reader goes away before that
// is cancelled and undone.
type Event struct {
	OperationID string          `json:"operation_id,omitempty" doc:"on the first line"`
	Stage       string          `json:"stage,omitempty" doc:"what begins now, as in: build image debian-bookworm"`
	Warning     string          `json:"warning,omitempty"`
	Result      json.RawMessage `json:"result,omitempty"`
	Error       *Problem        `json:"error,omitempty"`
}
