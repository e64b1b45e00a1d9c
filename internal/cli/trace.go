package cli

import "time"

// trace notes when each step of a run was done.
type trace struct {
	begun time.Time
	steps []step
}

type step struct {
	name string
	at   time.Duration
}

func newTrace() *trace { return &trace{begun: time.Now()} }

func (t *trace) mark(name string) { t.steps = append(t.steps, step{name, time.Since(t.begun)}) }

func (t *trace) report(v *voice) {
	last := time.Duration(0)
	for _, s := range t.steps {
		v.say("%8.1fms  +%.1fms  %s", milliseconds(s.at), milliseconds(s.at-last), s.name)
		last = s.at
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
