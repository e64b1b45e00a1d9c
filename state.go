package banger

import "slices"

// State is where a VM is in its life. The state that is shown is observed,
// never only remembered: see Observe.
type State string

// The states of a VM.
const (
	StateCreated   State = "created"   // has a disk, never ran
	StateRunning   State = "running"   // its shim and VMM live and the guest answers or is booting
	StatePaused    State = "paused"    // running, vCPUs halted
	StateSuspended State = "suspended" // memory saved to disk, no process
	StateStopped   State = "stopped"   // ran before, no process
	StateError     State = "error"     // ended in a way nobody asked for; the last error is kept
)

// States lists all states in the order of a VM's life.
var States = []State{StateCreated, StateRunning, StatePaused, StateSuspended, StateStopped, StateError}

var transitions = map[State][]State{
	StateCreated:   {StateRunning, StateError},
	StateRunning:   {StatePaused, StateSuspended, StateStopped, StateError},
	StatePaused:    {StateRunning, StateSuspended, StateStopped, StateError},
	StateSuspended: {StateRunning, StateStopped, StateError},
	StateStopped:   {StateRunning, StateError},
	StateError:     {StateRunning, StateStopped},
}

// CanBecome says whether a VM may go from s to next.
func (s State) CanBecome(next State) bool { return slices.Contains(transitions[s], next) }

// Live says whether a VM in this state has processes.
func (s State) Live() bool { return s == StateRunning || s == StatePaused }
