package vm

import (
	"strings"

	"banger"
	"banger/internal/shim"
)

// Observation is what can be seen of a VM beside its row.
type Observation struct {
	Dir           bool         // its directory, with our vm.json, is there
	Alive         bool         // a shim has it
	Status        *shim.Status // what that shim said last; nil before its first word
	Suspended     bool         // its machine lies saved in its directory
	Exit          *shim.Exit   // how its last run ended, where its shim could still say so
	Ran           bool         // a shim had it once
	HostRestarted bool         // since then
}

// Texts of the last error where no shim could leave one.
const (
	errNoDir    = "its directory is gone"
	errPowerCut = "its shim ended without a word, which equals a power cut"
	errHostCut  = "the host was restarted while it ran, which equals a power cut"
)

// Observe is the state of a VM, and what went wrong if it is in one nobody
// asked for. What runs now outweighs how the last run ended, and that what
// the row remembers; a row that already knows the end of its last run is
// right.
func Observe(row banger.VM, o Observation) (state banger.State, lastError string) {
	switch {
	case foreign(row):
		return row.State, row.Runtime.LastError
	case o.Alive && o.Status == nil:
		return banger.StateRunning, ""
	case o.Alive && o.Status.State != shim.Ended:
		return liveState(o.Status.State), o.Status.Problem
	case o.Alive && o.Status.Exit != nil:
		return endState(*o.Status.Exit)
	case !o.Dir && !row.Runtime.Creating:
		return banger.StateError, errNoDir
	case o.Suspended:
		return banger.StateSuspended, ""
	case !row.State.Live() && row.State != banger.StateCreated && row.State != banger.StateSuspended:
		return row.State, row.Runtime.LastError
	case o.Exit != nil:
		return endState(*o.Exit)
	case !o.Ran, row.State == banger.StateCreated && row.Runtime.BootCount == 0: // its first start failed
		return banger.StateCreated, ""
	case o.HostRestarted:
		return banger.StateError, errHostCut
	}
	return banger.StateError, errPowerCut
}

// foreign says whether another tool wrote the row.
func foreign(row banger.VM) bool { return row.Spec.Layout == 0 }

func liveState(s shim.State) banger.State {
	if s == shim.Paused {
		return banger.StatePaused
	}
	return banger.StateRunning
}

func endState(e shim.Exit) (banger.State, string) {
	switch e.Reason {
	case shim.ReasonStopped, shim.ReasonKilled, shim.ReasonOwnerGone, shim.ReasonPoweroff,
		shim.ReasonSuspended: // and its memory was dropped since
		return banger.StateStopped, ""
	}
	return banger.StateError, explainExit(e)
}

// consoleTail is how many lines of the console an error carries.
const consoleTail = 10

// explainExit is the sentence about an end, with the last console lines below.
func explainExit(e shim.Exit) string {
	lines := e.Console[max(0, len(e.Console)-consoleTail):]
	return strings.Join(append([]string{e.Message}, lines...), "\n")
}
