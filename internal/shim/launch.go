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
	Setup   guestwire.Setup `json:"setup"` // the shim adds time and entropy

	// Ephemeral: the VM ends when its last owner goes (Client.Own).
	Ephemeral bool `json:"ephemeral,omitempty"`
	// ReadyTimeout is how long streams wait for the guest; 0 is the default.
	// The VM is kept when it passes.
	ReadyTimeout time.Duration `json:"ready_timeout_nanos,omitempty"`
	// ConsoleLimit is the size in bytes at which the console log is rotated,
	// keeping one predecessor; 0 is the default.
	ConsoleLimit int64 `json:"console_limit,omitempty"`
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

func (l Launch) write(dir paths.VM) error { return writeJSON(dir.Launch(), l) }
