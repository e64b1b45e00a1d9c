package shim

import (
	"slices"
	"time"

	"banger"
)

// trace notes what a boot spends its time on.
type trace struct {
	last   time.Time
	phases []banger.Phase
	ready  bool
}

// newTrace begins with what was done before the shim.
func newTrace(l Launch) *trace {
	t := &trace{last: l.Began, phases: slices.Clone(l.Trace)}
	t.mark("shim")
	return t
}

// mark ends a phase.
func (t *trace) mark(name string) {
	now := time.Now()
	t.phases = append(t.phases, banger.Phase{Name: name, Millis: float64(now.Sub(t.last)) / float64(time.Millisecond)})
	t.last = now
}
