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

// Defaults of a Launch.
const (
	DefaultReadyTimeout = 90 * time.Second
	DefaultConsoleLimit = 1 << 20
)

// Launch is what a shim is to start: launch.json.
type Launch struct {
	ID      string          `json:"id"`
	Name    string          `json:"name"`   // for hints and logs
	Driver  string          `json:"driver"` // name of a vmm.Driver
	Machine vmm.Config      `json:"machine"`
	Setup   guestwire.Setup `json:"setup"` // the shim adds time, entropy and network
	Network *Network        `json:"network,omitempty"`
	Ports   *Ports          `json:"ports,omitempty"`

	// OwnInit is set for a guest whose image has the first process: its agent
	// answers before that has brought everything up.
	OwnInit bool `json:"own_init,omitempty"`

	// Restore has the VM begin as a machine that was saved. What cannot be
	// restored is booted, and so is a VM whose guest reboots.
	Restore *Restore `json:"restore,omitempty"`
	// Trace is what was done for this start until Began, when the shim was
	// to be started: for whoever asks where the time went.
	Trace []banger.Phase `json:"trace,omitempty"`
	Began time.Time      `json:"began,omitzero"`

	// Ephemeral: the VM ends when its last owner goes (Client.Own).
	Ephemeral bool `json:"ephemeral,omitempty"`
	// ReadyTimeout is how long streams wait for the guest; 0 is the default.
	// The VM is kept when it passes.
	ReadyTimeout time.Duration `json:"ready_timeout_nanos,omitempty"`
	// ConsoleLimit is the size in bytes at which the console log is rotated,
	// keeping one predecessor; 0 is the default.
	ConsoleLimit int64 `json:"console_limit,omitempty"`
}

// Restore is where a machine was left.
type Restore struct {
	Template string   `json:"template"` // its id, or "" for a machine that is no template
	State    string   `json:"state"`    // read once: nothing needs it afterwards
	Token    []byte   `json:"token"`    // of the host that spoke to its guest last
	Memory   *os.File `json:"-"`        // sealed; the shim inherits it

	// DiskBytes is the size of its disk when it was saved: where it is the
	// VM's, nobody needs to tell the guest of another. 0 is unknown.
	DiskBytes int64 `json:"disk_bytes,omitempty"`

	// Suspended is set for a VM that was suspended. The shim finds everything in the
	// VM's directory, and nothing else here is looked at. The saved machine
	// is gone from there before a vCPU runs.
	Suspended bool `json:"suspended,omitempty"`
	// Strict makes what cannot be restored an error, for a machine of which
	// a boot would be another one: the fork of a running VM.
	Strict bool `json:"strict,omitempty"`
}

// ReadLaunch reads the launch.json of a VM.
func ReadLaunch(dir paths.VM) (Launch, error) {
	var l Launch
	text, err := os.ReadFile(dir.Launch())
	if errors.Is(err, fs.ErrNotExist) {
		return l, banger.Errorf(banger.NotFound, "the VM was never launched: %w", err)
	}
	if err == nil {
		err = json.Unmarshal(text, &l)
	}
	if err != nil {
		return l, banger.Errorf(banger.Internal, "cannot read how the VM is launched: %w", err)
	}
	if l.ReadyTimeout == 0 {
		l.ReadyTimeout = DefaultReadyTimeout
	}
	if l.ConsoleLimit == 0 {
		l.ConsoleLimit = DefaultConsoleLimit
	}
	return l, nil
}

// write writes launch.json. That of a VM which does not outlive a power cut
// need not either.
func (l Launch) write(dir paths.VM) error {
	if !l.Ephemeral {
		return writeJSON(dir.Launch(), l)
	}
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return os.WriteFile(dir.Launch(), text, 0o600)
}
