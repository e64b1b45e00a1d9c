package vmm

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"banger"
)

// stateMagic begins a state file; the rest of its first line is the digest of
// all lines after it. The second is JSON, then come the VMM's own bytes.
const stateMagic = "banger machine state 1 sha256:"

// MaxState is far above what any machine's devices need.
const MaxState = 16 << 20

// State is what a driver keeps in Saved.State: what machine it was, and what
// its VMM has to say of its devices.
type State struct {
	Driver    string      `json:"driver"`
	Build     int         `json:"build,omitempty"` // of machines, which the driver counts and checks
	Version   string      `json:"version"`         // of the VMM, for people
	Accel     Accel       `json:"accel"`
	VCPU      int         `json:"vcpu"`
	MemoryMiB int64       `json:"memory_mib"`
	Disks     []diskShape `json:"disks"`
	NIC       *NIC        `json:"nic,omitempty"`
	Devices   []byte      `json:"-"`
}

type diskShape struct {
	Serial   string `json:"serial"`
	ReadOnly bool   `json:"read_only"`
}

// StateOf is the state of a machine of this description, without its devices.
func StateOf(driver, version string, cfg Config) State {
	s := State{Driver: driver, Version: version, Accel: cfg.Accel, VCPU: cfg.VCPU, MemoryMiB: cfg.MemoryMiB, NIC: cfg.NIC}
	for _, d := range cfg.Disks {
		s.Disks = append(s.Disks, diskShape{d.Serial, d.ReadOnly})
	}
	return s
}

// Encode gives the content of a state file.
func (s State) Encode() ([]byte, error) {
	header, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	body := append(append(header, '\n'), s.Devices...)
	return append(fmt.Appendf(nil, "%s%x\n", stateMagic, sha256.Sum256(body)), body...), nil
}

// Write writes a state file, with what the VMM has to say of its devices.
func (s State) Write(to *os.File, devices []byte) error {
	s.Devices = devices
	text, err := s.Encode()
	if err != nil {
		return err
	}
	_, err = to.Write(text)
	return err
}

// ReadState reads a state file that is whole; any other is bad_request.
func ReadState(path string) (State, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, banger.Errorf(banger.NotFound, "the saved state is missing: %w", err)
	}
	if err != nil {
		return State{}, banger.Wrap(err, "cannot read the saved state")
	}
	if info.Size() > MaxState {
		return State{}, banger.Errorf(banger.BadRequest, "%s is not a machine's state: it has %s", path, banger.FormatSize(info.Size()))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return State{}, banger.Wrap(err, "cannot read the saved state")
	}
	s, err := decodeState(text)
	if err != nil {
		return State{}, banger.Errorf(banger.BadRequest, "%s is not a machine's state, or damaged: %w", path, err)
	}
	return s, nil
}

// ReadFitting reads the state of a machine that this driver saved, and refuses one that is
// not of this description or of another build of it.
func ReadFitting(driver string, build int, cfg Config, from Source) (State, error) {
	s, err := ReadState(cfg.At(from.State))
	if err == nil {
		err = s.Fits(driver, cfg, from.Memory)
	}
	if err == nil && s.Build != build {
		err = banger.Errorf(banger.BadRequest, "the machine was saved by another version of banger, whose machines have other devices")
	}
	return s, err
}

func decodeState(text []byte) (s State, err error) {
	first, body, _ := bytes.Cut(text, []byte{'\n'})
	if string(first) != fmt.Sprintf("%s%x", stateMagic, sha256.Sum256(body)) {
		return s, fmt.Errorf("its digest is wrong")
	}
	header, devices, _ := bytes.Cut(body, []byte{'\n'})
	if err := json.Unmarshal(header, &s); err != nil {
		return s, err
	}
	s.Devices = devices
	return s, nil
}

// Fits refuses a description of another machine than this was, and a memory
// that cannot be this one's.
func (s State) Fits(driver string, cfg Config, memory *os.File) error {
	was, is := s.shape(), StateOf(driver, "", cfg).shape()
	if was != is {
		return banger.Errorf(banger.BadRequest, "the machine that was saved is another one: %s, not %s", was, is)
	}
	info, err := memory.Stat()
	if err != nil {
		return banger.Wrap(err, "cannot look at the saved memory")
	}
	if want := cfg.MemoryMiB << 20; info.Size() != want {
		return banger.Errorf(banger.BadRequest, "the saved memory is not whole: it has %d bytes, not %d", info.Size(), want)
	}
	return nil
}

// shape is all that must be equal, in words.
func (s State) shape() string {
	text := fmt.Sprintf("%s %s with %d vCPU and %d MiB", s.Driver, s.Accel, s.VCPU, s.MemoryMiB)
	for _, d := range s.Disks {
		mode := "writable"
		if d.ReadOnly {
			mode = "read-only"
		}
		text += fmt.Sprintf(", %s disk %s", mode, d.Serial)
	}
	if s.NIC != nil {
		text += fmt.Sprintf(", network card %s of MTU %d", s.NIC.MAC, s.NIC.MTU)
	}
	return text
}
