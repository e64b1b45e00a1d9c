package vm

import (
	"context"
	"log/slog"
	"syscall"
	"time"

	"banger"
	"banger/internal/config"
	"banger/internal/guestwire"
	"banger/internal/paths"
	"banger/internal/shim"
	"banger/internal/vmm"
)

// Deps is what a Manager works with. All fields are needed.
type Deps struct {
	Store   Store
	Images  Images
	Kernels Kernels
	Shims   Shims

	Templates Templates
	Loopback  Loopback
	HostKeys  HostKeys

	Dirs paths.Dirs
	Log  *slog.Logger

	// Config is the configuration as it is now.
	Config func() (config.Config, []config.Warning, error)
	// Choose picks the monitor for one start, of a guest with this kernel. It is asked at each.
	Choose func(ctx context.Context, c config.Config, k banger.Kernel) (Machine, error)
	// Initramfs gives the path and digest of banger's initramfs for a kernel.
	Initramfs func(ctx context.Context, k banger.Kernel) (path, digest string, err error)
	// Trust gives the certificates that the host's administrator added, in PEM, and
	// says of each file why it was left out.
	Trust func() (text []byte, problems []string)

	// Ending is closed once the daemon is to end, which may take it a while: what nobody
	// asked for is not begun any more.
	Ending <-chan struct{}
}

// Machine is the monitor that was picked for a start.
type Machine struct {
	Driver   string // name of a vmm.Driver
	Binary   string
	Accel    vmm.Accel
	Features vmm.Features
}

// Store is the ledger of VMs.
type Store interface {
	VMs(ctx context.Context) ([]banger.VM, error)
	VM(ctx context.Context, id string) (banger.VM, error)
	Images(ctx context.Context) ([]banger.Image, error)
	ReserveVM(ctx context.Context, vm banger.VM, network string) (banger.VM, error)
	ReserveVMs(ctx context.Context, vms []banger.VM, network string) ([]banger.VM, error)
	UpsertVM(ctx context.Context, vm banger.VM) error
	SetState(ctx context.Context, id string, state banger.State, runtime banger.Runtime) error
	SetStates(ctx context.Context, state banger.State, runtimes map[string]banger.Runtime) error
	SetWorkspace(ctx context.Context, id string, w banger.Workspace) error
	SetStats(ctx context.Context, id string, stats banger.Stats) error
	ChangeStats(ctx context.Context, all map[string]func(banger.Stats) (banger.Stats, bool)) error
	TouchVMs(ctx context.Context, touched map[string]time.Time) error
	DeleteVM(ctx context.Context, id string) error
}

// Image is an image with what a start needs to know of it.
type Image struct {
	banger.Image
	Digest  string   // sha256 of the root file system, hex
	Env     []string // KEY=VALUE
	WorkDir string
	User    string // who runs commands that name nobody; "" is root
	Kernel  string // digest of the kernel its VMs boot; "" is the configured one
	Seed    string // sha256 of its work seed, hex; "" where it has none
}

// Images finds images, and gets those that are missing.
type Images interface {
	// Ensure finds an image by reference, and gets one of the catalogue or of
	// a registry that is missing; stage hears what it does.
	Ensure(ctx context.Context, ref string, access banger.Access, stage func(string)) (Image, error)
	// Image is the image with this id.
	Image(ctx context.Context, id string) (Image, error)
}

// Kernels finds kernels by name or digest, and gets those of the catalogue.
type Kernels interface {
	Get(ref string) (banger.Kernel, error)
	// Pull gets one of the catalogue, through the proxies of who asks.
	Pull(ctx context.Context, name string, force bool, access banger.Access, stage func(string)) (banger.Kernel, error)
}

// HostKeys makes the keys by which ssh knows VMs, and pins them.
type HostKeys interface {
	// Host sees that a VM's key is there, pinned, and found by its name: conflict
	// where it is not the one that was pinned.
	Host(dir paths.VM, id, name string) error
	Rename(id, name string) error
	Keep(known func(id string) bool) error // forgets all others
	Forget(id string) error
}

// Shims starts the supervisors of VMs and finds those that run.
type Shims interface {
	Start(ctx context.Context, dir paths.VM, launch shim.Launch) (Shim, error)
	Dial(ctx context.Context, dir paths.VM) (Shim, error)
	Alive(dir paths.VM) (shim.Identity, bool, error)
	KillRecorded(ctx context.Context, dir paths.VM) error
	KillOrphans(ctx context.Context, vms string) ([]shim.Resident, error)
}

// Shim is a connection to the supervisor of one running VM.
type Shim interface {
	Status(ctx context.Context) (shim.Status, error)
	Watch(ctx context.Context, f func(shim.Status)) error
	Stop(ctx context.Context, timeout time.Duration) (shim.Exit, error)
	StopIdle(ctx context.Context, timeout, idle time.Duration) (shim.Exit, error) // busy where it was used since
	Kill(ctx context.Context, sig syscall.Signal) (shim.Exit, error)
	Suspend(ctx context.Context) (shim.Exit, error)
	SuspendIdle(ctx context.Context, idle time.Duration) (shim.Exit, error) // busy where it was used since
	Save(ctx context.Context, r shim.SaveRequest) (shim.Saved, error)
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
	Keep(ctx context.Context) error
	GrowDisk(ctx context.Context, serial string, size int64) error
	Allow(ctx context.Context, r shim.Reach) (ended int, err error)
	Network(ctx context.Context) (shim.NetworkReport, error)
	Ports(ctx context.Context) ([]banger.Port, error)
	GuestHealth(ctx context.Context) (guestwire.Health, error)
	GuestStats(ctx context.Context) (guestwire.GuestStats, error)
	Close() error
}

// ShimsOf are shims in processes of their own.
func ShimsOf(s *shim.Starter) Shims { return processes{s} }

type processes struct{ starter *shim.Starter }

func (p processes) Start(ctx context.Context, dir paths.VM, launch shim.Launch) (Shim, error) {
	return connected(p.starter.Start(ctx, dir, launch))
}

func (p processes) Dial(ctx context.Context, dir paths.VM) (Shim, error) {
	return connected(shim.Dial(ctx, dir))
}

func (processes) Alive(dir paths.VM) (shim.Identity, bool, error) { return shim.Alive(dir) }

func (processes) KillRecorded(ctx context.Context, dir paths.VM) error {
	return shim.KillRecorded(ctx, dir)
}

func (processes) KillOrphans(ctx context.Context, vms string) ([]shim.Resident, error) {
	return shim.KillOrphans(ctx, vms)
}

type client struct{ *shim.Client }

// connected keeps a nil client from becoming a Shim that is not nil.
func connected(c *shim.Client, err error) (Shim, error) {
	if err != nil {
		return nil, err
	}
	return client{c}, nil
}

func (c client) GuestHealth(ctx context.Context) (guestwire.Health, error) {
	return c.Guest().Health(ctx)
}

func (c client) GuestStats(ctx context.Context) (guestwire.GuestStats, error) {
	return c.Guest().Stats(ctx)
}
