package shim

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"

	"banger"
	"banger/internal/guestwire"
	"banger/internal/paths"
	"banger/internal/vmm"
)

// State is where a shim's VM is.
type State string

// The states. A VM whose guest does not come up stays booting, with
// Status.Problem set.
const (
	Booting  State = "booting"
	Running  State = "running" // the guest is set up and answers
	Paused   State = "paused"
	Stopping State = "stopping"
	Ended    State = "ended"
)

// Status is what a shim says of its VM.
type Status struct {
	State       State                 `json:"state"`
	Problem     string                `json:"problem,omitempty"` // why the guest cannot be spoken to, for people
	Ephemeral   bool                  `json:"ephemeral,omitempty"`
	Owners      int                   `json:"owners,omitempty"`
	Shim        Identity              `json:"shim"`
	VMMPID      int                   `json:"vmm_pid,omitempty"`
	StartedAt   time.Time             `json:"started_at"`             // of the shim
	ReadyAt     time.Time             `json:"ready_at,omitzero"`      // of the present boot
	LastTouched time.Time             `json:"last_touched"`           // as use.go says; no change that watchers are told of
	IdleMillis  int64                 `json:"idle_millis,omitempty"`  // since then, as time passes for a host that is awake; 0 also of a shim that does not say
	Boots       int                   `json:"boots"`                  // 1, and one more for each reboot inside
	Guest       guestwire.SetupResult `json:"guest,omitzero"`         // once it was ready
	Isolation   []string              `json:"isolation,omitempty"`    // what holds the VMM back
	Streams     int                   `json:"streams,omitempty"`      // to the guest, open now; connections to its ports are some
	Address     string                `json:"address,omitempty"`      // of the VM on the host, where its ports are
	Restored    string                `json:"restored,omitempty"`     // what the present boot took up: RestoredTemplate and so on; "" for a boot from the start
	Template    string                `json:"template,omitempty"`     // the present boot is a fork of
	NotRestored string                `json:"not_restored,omitempty"` // why the first boot is none although it was to be
	Reach       *Reach                `json:"reach,omitempty"`        // nil where the guest has no network
	Trace       []banger.Phase        `json:"trace,omitempty"`        // of the present boot, once it was ready
	Exit        *Exit                 `json:"exit,omitempty"`         // with Ended
}

// What a boot can have taken up, as in Status.Restored.
const (
	RestoredTemplate  = "template"
	RestoredSuspended = "suspended"
	RestoredFork      = "fork"
)

// Reason says why a run ended.
type Reason string

// The reasons.
const (
	ReasonStopped    Reason = "stopped"     // Client.Stop
	ReasonKilled     Reason = "killed"      // Client.Kill
	ReasonOwnerGone  Reason = "owner-gone"  // ephemeral, and its last owner went
	ReasonPoweroff   Reason = "poweroff"    // the guest asked for it
	ReasonPanic      Reason = "panic"       // of the guest's kernel
	ReasonCrashed    Reason = "crashed"     // the VMM gave up, or somebody else killed it
	ReasonNeverReady Reason = "never-ready" // the guest ended before it ever came up
	ReasonSuspended  Reason = "suspended"   // Client.Suspend: its machine is saved in the VM's directory
)

// Exit is how a run ended: exit.json.
type Exit struct {
	Reason  Reason    `json:"reason"`
	At      time.Time `json:"at"`
	Message string    `json:"message"`           // a sentence for people
	Boots   int       `json:"boots"`             // how often the guest was booted in this run
	VMM     vmm.Exit  `json:"vmm"`               // how the VMM ended
	Console []string  `json:"console,omitempty"` // last lines, printable
}

// Failed says whether nobody asked for this end.
func (e Exit) Failed() bool {
	switch e.Reason {
	case ReasonPanic, ReasonCrashed, ReasonNeverReady:
		return true
	}
	return false
}

// ReadExit reads how the last run of a VM ended; nil where it has not ended,
// or its shim was killed.
func ReadExit(dir paths.VM) (*Exit, error) {
	text, err := os.ReadFile(dir.Exit())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	e := &Exit{}
	if err == nil {
		err = json.Unmarshal(text, e)
	}
	if err != nil {
		return nil, banger.Errorf(banger.Internal, "cannot read how the VM ended: %w", err)
	}
	return e, nil
}

// Methods of KindShim, as guestwire.Call.
const (
	methodStatus  = "status"    // → Status
	methodWatch   = "watch"     // Status as JSON lines on channel 1, now and at each change, until the end
	methodOwn     = "own"       // a line on channel 1, then stays open; its end is the owner's
	methodKeep    = "keep"      // clears Ephemeral
	methodTouch   = "touch"     //
	methodStop    = "stop"      // stopRequest → Exit, when the VMM is gone
	methodKill    = "kill"      // killRequest → Exit, when the VMM is gone
	methodPause   = "pause"     //
	methodResume  = "resume"    //
	methodGrow    = "grow_disk" // growRequest
	methodSave    = "save"      // SaveRequest → Saved
	methodSuspend = "suspend"   // suspendRequest → Exit, when the VMM is gone
	methodAllow   = "allow"     // Reach → allowed
	methodProxy   = "proxy"     // proxyRequest
	methodNetwork = "network"   // → NetworkReport
	methodPorts   = "ports"     // → []banger.Port
	methodExplain = "explain"   // explainRequest → explained
)

// report is the channel of watch and own.
const report = guestwire.Stdout

type stopRequest struct {
	TimeoutMillis int64 `json:"timeout_millis"`
	IfIdle
}

type suspendRequest struct{ IfIdle }

// IfIdle is a condition: the VM is not in use, and has not been for so long. A shim
// of an earlier build does not know it, and does what it is told.
type IfIdle struct {
	Millis int64 `json:"if_idle_millis,omitempty"` // 0 is always met
}

type killRequest struct {
	Signal int `json:"signal"`
}

type growRequest struct {
	Serial string `json:"serial"`
	Size   int64  `json:"size"`
}
