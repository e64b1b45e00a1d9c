// Package vm is the life of VMs: create, start, stop, kill, delete, rename,
// and what must be put right after a crash.
//
// It holds every decision about a VM's state and directory. It knows nothing
// of HTTP, terminals or how a VMM works: it speaks to a VM through the client
// of its shim, to the ledger and to images through small interfaces.
package vm

import (
	"context"
	"time"

	"banger"
	"banger/internal/shim"
)

// Create is what a new VM is asked to be. Zero values mean the default.
type Create struct {
	Name      string
	Image     string // name, id or a reference; pulled when it is missing
	Kernel    string
	VCPU      int
	MemoryMiB int64
	DiskBytes int64
	NAT       *bool
	Allow     []string
	Publish   []string
	Init      string
	Cold      bool
	Ephemeral bool
	Start     bool
	Wait      bool
	Access    banger.Access // to pull the image with
}

// Set is what a VM is to become. What is zero or nil stays.
type Set struct {
	VCPU      int
	MemoryMiB int64
	DiskBytes int64
	NAT       *bool
	NoAllow   bool     // forgets all rules, those of Allow not
	Allow     []string // more rules
	DryRun    bool     // only say what would change
}

// View is a VM as it is now: its row joined with what was observed.
type View struct {
	banger.VM   // State is the observed one
	ImageName   string
	LastError   string
	Dir         string
	HostAddress string // its own on the host, while it runs
	ShimPID     int
	VMMPID      int
	BootID      string
	GuestKernel string
	Isolation   []string
	Template    string // its present boot is a fork of, or ""
	Restored    string // what its present boot took up, as shim.Status says
	NotRestored string // why it took up nothing although it was to
	Trace       []banger.Phase
	Foreign     bool // another tool's row
}

// Fork is what copies of a VM are asked to be.
type Fork struct {
	Count     int    // 0 means 1
	Prefix    string // of their names; the VM's name where empty
	Ephemeral bool
}

// Forks are the copies, and how long their parent stood still for them.
type Forks struct {
	VMs   []View
	Pause time.Duration
}

// Progress hears what an operation does. Its methods return promptly.
type Progress interface {
	Stage(name string) // begins now; ends the one before
	Warn(message string)
}

// Service is what the daemon offers its clients of this package; Manager
// implements it. Methods take exact ids. All of them may be called
// concurrently; mutations of one VM wait for each other, and give up when ctx
// ends.
//
// A Create that fails or is cancelled is undone before it returns, unless the
// guest was started and did not come up: then the VM stays in error, with an
// ephemeral one removed; one that is merely slow is kept. Cancelling a Start
// that waits leaves the VM running. Starting what runs, stopping what does not
// and deleting what is gone are no errors; Kill, Pause, Resume and Health of a
// VM that does not run are not_running. Stats of one has only its disk.
type Service interface {
	Create(ctx context.Context, c Create, p Progress) (View, error)
	Start(ctx context.Context, id string, cold, wait bool, p Progress) (View, error)
	Stop(ctx context.Context, id string, timeout time.Duration, p Progress) (View, error)
	Restart(ctx context.Context, id string, timeout time.Duration, p Progress) (View, error)
	Kill(ctx context.Context, id, signal string) (View, error)
	// Suspend saves the memory of a VM and ends it; Start resumes it.
	Suspend(ctx context.Context, id string, p Progress) (View, error)
	// Fork makes copies of a VM, which all run once it returns, or none; those that
	// somebody kills or deletes by force meanwhile are left out. The VM goes on as it is.
	Fork(ctx context.Context, id string, f Fork, p Progress) (Forks, error)
	Pause(ctx context.Context, id string) (View, error)
	Resume(ctx context.Context, id string) (View, error)
	Delete(ctx context.Context, id string, force bool) error
	Rename(ctx context.Context, id, name string) (View, error)
	Keep(ctx context.Context, id string) (View, error) // no longer ephemeral
	// Visit runs a stopped VM (conflict else) for as long as do takes, and for
	// nothing else: without its network, its ports and its own init. It is stopped
	// again whatever happens, also to the daemon.
	Visit(ctx context.Context, id string, p Progress, do func(ctx context.Context) error) error
	// SetWorkspace notes the repository that was brought into a VM.
	SetWorkspace(ctx context.Context, id string, w banger.Workspace) (View, error)
	// HostKey sees that a VM's SSH host key is there, and the pinned one.
	HostKey(ctx context.Context, id string) (View, error)

	CreateSnapshot(ctx context.Context, id, name string, p Progress) (banger.Snapshot, error)
	Snapshots(ctx context.Context, id string) ([]banger.Snapshot, error)
	// RestoreSnapshot refuses (conflict) a VM that runs unless force is set.
	RestoreSnapshot(ctx context.Context, id, snapshot string, force bool, p Progress) (View, error)
	DeleteSnapshot(ctx context.Context, id, snapshot string) error

	// Set changes what a VM is and what it may reach: its network and the growth of
	// its disk also while it runs, at once; its processors and memory when it is
	// stopped (conflict else). It says what changed, or would with DryRun.
	Set(ctx context.Context, id string, s Set, p Progress) (View, []string, error)
	// Ports says where what listens in a guest is on the host.
	Ports(ctx context.Context, id string) ([]banger.Port, error)
	// Network tells what a guest reached and what it was refused.
	Network(ctx context.Context, id string) (shim.NetworkReport, error)

	List(ctx context.Context) ([]View, error)
	Get(ctx context.Context, id string) (View, error)
	Health(ctx context.Context, id string) (uptimeSeconds float64, problems []string, err error)
	Stats(ctx context.Context, id string) (banger.Stats, error)

	// Reconcile puts right what a crash left, once, before anything else.
	Reconcile(ctx context.Context) error
	// Run watches shims and writes touches until ctx ends.
	Run(ctx context.Context) error
}
