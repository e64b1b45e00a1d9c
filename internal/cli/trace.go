package cli

import (
	"time"

	"banger"
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
// of it: what they do not account for is the way to them and back.
func (t *trace) start(theirs []banger.Phase) {
	t.mark("start")
	whole := &t.phases[len(t.phases)-1]
	for _, p := range theirs {
		whole.Millis -= p.Millis
	}
	whole.Name = "talk"
	t.phases = append(t.phases[:len(t.phases)-1:len(t.phases)-1], append(theirs, *whole)...)
}

func (t *trace) report(v *voice) {
	total := 0.0
	for _, p := range t.phases {
		total += p.Millis
		v.say("%8.1f ms  %s", p.Millis, p.Name)
	}
	v.say("%8.1f ms  in all", total)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
