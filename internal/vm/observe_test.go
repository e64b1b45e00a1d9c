package vm

import (
	"testing"

	"banger"
	"banger/internal/shim"
)

func TestObserve(t *testing.T) {
	const (
		created, running, paused = banger.StateCreated, banger.StateRunning, banger.StatePaused
		stopped, failed          = banger.StateStopped, banger.StateError
	)
	says := func(s shim.State) Observation {
		return Observation{Dir: true, Alive: true, Ran: true, Status: &shim.Status{State: s}}
	}
	left := func(r shim.Reason) Observation {
		return Observation{Dir: true, Ran: true, Exit: &shim.Exit{Reason: r, Message: "m"}}
	}
	for _, tt := range []struct {
		name string
		row  banger.State
		o    Observation
		want banger.State
		err  string
	}{
		{"never ran", created, Observation{Dir: true}, created, ""},
		{"no word yet", created, Observation{Dir: true, Alive: true}, running, ""},
		{"booting", running, says(shim.Booting), running, ""},
		{"up", running, says(shim.Running), running, ""},
		{"stopping", running, says(shim.Stopping), running, ""},
		{"paused", running, says(shim.Paused), paused, ""},
		{"runs though the row says stopped", stopped, says(shim.Running), running, ""},
		{"runs though it once failed", failed, says(shim.Running), running, ""},
		{"stopped by us", running, left(shim.ReasonStopped), stopped, ""},
		{"powered off", running, left(shim.ReasonPoweroff), stopped, ""},
		{"killed by us", running, left(shim.ReasonKilled), stopped, ""},
		{"owner gone", running, left(shim.ReasonOwnerGone), stopped, ""},
		{"panic", running, left(shim.ReasonPanic), failed, "m"},
		{"killed by nobody we know", running, left(shim.ReasonCrashed), failed, "m"},
		{"never came up", running, left(shim.ReasonNeverReady), failed, "m"},
		{"a reason of a later version", running, left("melted"), failed, "m"},
		{"shim killed", running, Observation{Dir: true, Ran: true}, failed, errPowerCut},
		{"shim killed while paused", paused, Observation{Dir: true, Ran: true}, failed, errPowerCut},
		{"host restarted", running, Observation{Dir: true, Ran: true, HostRestarted: true}, failed, errHostCut},
		{"start that never began", running, Observation{Dir: true}, created, ""},
		{"first start failed", created, Observation{Dir: true, Ran: true}, created, ""},
		{"first start failed before the host was restarted", created, Observation{Dir: true, Ran: true, HostRestarted: true}, created, ""},
		{"ended while the row still says created", created, left(shim.ReasonPanic), failed, "m"},
		{"stopped long ago", stopped, Observation{Dir: true}, stopped, "old"},
		{"failed long ago", failed, left(shim.ReasonStopped), failed, "old"},
		{"directory gone", stopped, Observation{}, failed, errNoDir},
		{"directory gone while it should run", running, Observation{}, failed, errNoDir},
		{"said how it ended", running, Observation{Dir: true, Alive: true,
			Status: &shim.Status{State: shim.Ended, Exit: &shim.Exit{Reason: shim.ReasonStopped}}}, stopped, ""},
	} {
		row := banger.VM{State: tt.row, Spec: banger.Spec{Layout: 1}, Runtime: banger.Runtime{LastError: "old"}}
		if state, lastError := Observe(row, tt.o); state != tt.want || lastError != tt.err {
			t.Errorf("%s: got %s %q, want %s %q", tt.name, state, lastError, tt.want, tt.err)
		}
	}
}

func TestObserveBelievesForeignRows(t *testing.T) {
	if state, _ := Observe(banger.VM{State: banger.StateRunning}, Observation{}); state != banger.StateRunning {
		t.Error(state)
	}
}

func TestProblemOfALiveGuestIsShown(t *testing.T) {
	o := Observation{Dir: true, Alive: true, Status: &shim.Status{State: shim.Booting, Problem: "no answer"}}
	if state, problem := Observe(banger.VM{Spec: banger.Spec{Layout: 1}}, o); state != banger.StateRunning || problem != "no answer" {
		t.Error(state, problem)
	}
}
