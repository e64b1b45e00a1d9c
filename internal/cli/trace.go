package cli

import (
	"slices"
	"time"

	"banger"
	"banger/internal/api"
)

// trace notes where the time of a start or run goes. What daemon, shim and
// guest did is theirs to say; the rest is measured here.
type trace struct {
	last   time.Time
	phases []banger.Phase
}

func newTrace() *trace { return &trace{last: time.Now()} }

// mark ends a phase.
func (t *trace) mark(name string) {
	now := time.Now()
	t.phases = append(t.phases, banger.Phase{Name: name, Millis: milliseconds(now.Sub(t.last))})
	t.last = now
}

// start ends the phase in which others started a VM, and takes their account
// of it.
func (t *trace) start(theirs []banger.Phase) {
	t.mark("talk")
	t.phases = accounted(t.phases, theirs)
}

// of is the trace of one of several VMs that were started in the last phase.
func (t *trace) of(vm api.VM) *trace {
	return &trace{phases: accounted(t.phases, vm.Trace)}
}

// accounted puts the account others give of the last phase before it: what they
// do not account for is the way to them and back.
func accounted(phases, theirs []banger.Phase) []banger.Phase {
	before, talk := phases[:len(phases)-1], phases[len(phases)-1]
	for _, p := range theirs {
		talk.Millis -= p.Millis
	}
	return append(slices.Concat(before, theirs), talk)
}

// with adds a phase that was measured.
func (t *trace) with(name string, took time.Duration) *trace {
	t.phases = append(t.phases, banger.Phase{Name: name, Millis: milliseconds(took)})
	return t
}

// report writes the phases, each line behind prefix.
func (t *trace) report(v *voice, prefix string) {
	if len(t.phases) == 0 {
		return
	}
	total := 0.0
	for _, p := range t.phases {
		total += p.Millis
		v.say("%s%8.1f ms  %s", prefix, p.Millis, p.Name)
	}
	v.say("%s%8.1f ms  in all", prefix, total)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
