// Package vmm is the contract between a shim and the virtual machine monitor
// it runs: a Driver boots machines from a plain description, a Machine is one
// running VMM process.
//
// It knows nothing of images, rows, networks or what a guest does. The drivers
// live in vmm/qemu and vmm/firecracker; vmm/vmmtest holds the fake and the
// conformance suite every driver passes.
package vmm

import (
	"context"
	"io"
	"net"
	"os"
)

// Accel is how a machine's instructions are run.
type Accel string

// The accelerations.
const (
	KVM Accel = "kvm" // hardware virtualisation
	TCG Accel = "tcg" // emulation; not an isolation boundary
)

// AgentPort is the name of the virtio port behind Machine.Agent, where a
// driver offers one: the guest finds it in /sys/class/virtio-ports/*/name.
const AgentPort = "banger.agent"

// Config describes a machine. It is plain data, so that it can be written
// down, compared and sent; what is live (console, log) travels in IO.
// Relative paths start at Dir.
type Config struct {
	Dir       string `json:"dir"`        // working directory of the VMM: the VM's own
	Binary    string `json:"binary"`     // the VMM's executable
	Accel     Accel  `json:"accel"`      //
	VCPU      int    `json:"vcpu"`       // number of virtual CPUs, from 1
	MemoryMiB int64  `json:"memory_mib"` //
	Kernel    string `json:"kernel"`     // uncompressed ELF or bzImage, whichever the driver's Features ask for
	Initrd    string `json:"initrd"`     // empty for none
	Cmdline   string `json:"cmdline"`    // the caller's part; the driver adds console, clock and panic settings
	Disks     []Disk `json:"disks"`      // in the order the guest sees them
	NIC       *NIC   `json:"nic,omitempty"`
}

// NIC is the network card of a machine. The guest finds it by its address. What
// is at the other end of its cable is the caller's affair (Machine.Cable): no VMM
// reaches a network.
type NIC struct {
	MAC string `json:"mac"` // as in "52:54:00:00:00:01"
	MTU int    `json:"mtu"` // the guest begins with it
}

// Cable is the host's end of a network card's cable. Frames that nobody takes
// hold up the card, and nothing else. Its end is the machine's.
type Cable struct {
	io.ReadWriteCloser

	// Packets says that each read and write is one frame. Else each frame
	// follows its length in four bytes, the highest first.
	Packets bool
}

// Disk is a block device of a machine. The guest finds it by its serial, never
// by its order.
type Disk struct {
	Serial   string `json:"serial"` // 1 to 20 letters, digits and hyphens: "root", "modules", "disk"
	Path     string `json:"path"`   // raw file; its size is a multiple of 512
	ReadOnly bool   `json:"read_only"`

	// Layers are qcow2 files above Path, lowest first, where the driver's
	// Features have Layers. What one of them does not have is read from
	// below it. The last takes the writes; nobody writes the others and Path.
	Layers []string `json:"layers,omitempty"`
}

// IO is where a machine's output goes; nil discards it. Both writers must
// return promptly: a guest waits for its console. Neither is called after
// Done is closed.
type IO struct {
	Console io.Writer // the guest's serial console
	Log     io.Writer // the VMM's own messages

	// Up, if it is given, is called once from within Boot or Restore: the VMM
	// has started and takes orders, and has loaded and run nothing yet. It
	// parts what the VMM costs from what the machine does.
	Up func()

	// Halted, if it is given, is called whenever the VMM has halted the vCPUs since
	// the host has no room for what the guest writes to a disk. Nothing is lost:
	// Resume tries it again. It must return promptly, and must not wait for
	// anything of the machine.
	Halted func()
}

// Features says what a driver needs and can do, so that callers plan instead
// of trying.
type Features struct {
	UncompressedKernel bool // Config.Kernel must be the extracted vmlinux
	Pause              bool
	DiskGrowth         bool // GrowDisk works while the machine runs
	Snapshots          bool // Save and Restore
	Layers             bool // Disk.Layers and FreezeDisk
	Halts              bool // IO.Halted; else a guest sees that the host has no room, as an error of its disk
	Accels             []Accel
}

// Driver makes machines. Drivers hold no state: any number of machines may be
// booted from one, concurrently.
type Driver interface {
	Name() string
	Features() Features

	// Boot starts the VMM and returns once its vCPUs run; the guest is
	// still booting then. The machine's life does not hang on ctx, which
	// bounds only the start. A failed Boot leaves no process and no file
	// that was not there before. The VMM dies with the process that called
	// Boot, whatever kills that.
	//
	// A kernel, initrd, disk or VMM that is missing is an error of code
	// not_found, a description that cannot work bad_request, a cancelled
	// ctx cancelled.
	Boot(ctx context.Context, cfg Config, io IO) (Machine, error)

	// Restore is Boot from where a Save left a machine: its memory is a
	// private copy-on-write view of from.Memory, which the guest's writes
	// never reach, and it returns once the vCPUs run. Any number of machines
	// may be restored from one Save, at once.
	//
	// cfg describes the machine that was saved: the same VMM, acceleration,
	// vCPUs, memory, network card, and disks of the same serials, modes and order, with the
	// content they had while it stood still, each no smaller. Kernel, initrd
	// and command line are not needed and not looked at. Another machine, and
	// a state or memory that is not whole, is refused with bad_request before
	// any vCPU ran; one that is missing with not_found.
	//
	// The guest is told nothing. Its side of the agent stream is as it was,
	// perhaps in the middle of something; the host's is new, and so is the cable.
	Restore(ctx context.Context, cfg Config, from Source, io IO) (Machine, error)
}

// Machine is one running VMM. All methods may be called concurrently and
// after the machine ended, when Pause, Resume, Save, GrowDisk, FreezeDisk and
// Signal return an error of code not_running.
type Machine interface {
	// Agent is the byte stream to the guest agent, connected from the
	// start. When the machine ends, what the guest wrote can still be read,
	// then comes EOF. Closing it is the caller's business, and final: there
	// is no second connection.
	Agent() net.Conn

	// Cable is the host's end of the guest's network card, nil without one. Like
	// Agent it is there from the start, the caller's to close, and final.
	Cable() *Cable

	// PID is the VMM's process id, for reading /proc; signals go through
	// Signal, which can never hit a recycled pid.
	PID() int

	// Isolation names what holds the VMM back on this host, in words for
	// people: "user namespace", "seccomp". It can be less than the driver
	// asked for where the host does not allow it.
	Isolation() []string

	// Pause halts the vCPUs and Resume lets them run; both are idempotent
	// and have happened when they return.
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error

	// Save writes the machine to two new files, with mode 0600, and leaves it
	// paused: the caller decides between Resume and Signal. Once the vCPUs
	// have halted and everything the guest wrote so far is in the files of
	// its disks, it calls frozen, which copies those that are written to;
	// nil for nothing to do. It calls it at most once, from this goroutine.
	// What can be copied while the guest runs is copied before the pause.
	// The files are not synced. What is sent to the agent meanwhile reaches
	// this machine once it runs again, and none that is restored.
	//
	// A Save that fails, by frozen's error among others, removes its files
	// and lets the machine run again if it ran before. Files that are there
	// already are refused with already_exists and left alone. One Save runs at a
	// time, others wait, and no one else may pause, resume or grow meanwhile.
	Save(ctx context.Context, to Saved, frozen func() error) error

	// GrowDisk tells the machine that the file behind the disk with this
	// serial was enlarged to size bytes. The topmost layer of a disk that has
	// some it enlarges itself. An unknown serial is not_found, a size below the
	// present one bad_request.
	GrowDisk(ctx context.Context, serial string, size int64) error

	// FreezeDisk puts overlay, an empty layer as large as the disk, on top of
	// the disk with this serial: from its return on the VMM writes there and
	// holds what is below for reading only. It works on a machine that runs,
	// one that is paused, and in Save's frozen. An unknown serial or a missing
	// overlay is not_found, a read-only disk or an overlay that does not fit
	// bad_request.
	//
	// Where it fails overlay is not in use and may be removed, unless the
	// error is not_running: a machine that ended may have written to it.
	FreezeDisk(ctx context.Context, serial, overlay string) error

	// Signal sends a signal to the VMM: SIGKILL is a power cut, SIGTERM and
	// SIGINT end the VMM in good order, all without asking the guest, and
	// also while paused.
	Signal(sig os.Signal) error

	// Done is closed when the VMM has ended, was reaped, and all its output
	// reached IO; Exit is valid from then on.
	Done() <-chan struct{}
	Exit() Exit
}

// Reason says why a VMM ended.
type Reason string

// The reasons. Whether a reset was a reboot or a panic is for the caller to
// tell from the console.
const (
	Poweroff Reason = "poweroff" // the guest asked for it
	Reset    Reason = "reset"    // the guest rebooted or panicked
	Killed   Reason = "killed"   // by a signal from outside
	Crashed  Reason = "crashed"  // the VMM gave up, with a status or a signal of its own making
)

// Exit is how a VMM ended.
type Exit struct {
	Reason  Reason `json:"reason"`
	Signal  string `json:"signal,omitempty"`  // as in "SIGKILL"
	Status  int    `json:"status,omitempty"`  // for Crashed
	Message string `json:"message,omitempty"` // last line of the VMM's log, for Crashed
}
