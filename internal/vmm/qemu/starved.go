package qemu

import (
	"time"

	"banger/internal/vmm"
)

// busyFor is how long a verdict holds that was found on a busy host: nobody should go without KVM
// until the next boot for it, nor wait at each start.
const busyFor = 10 * time.Minute

// unlessStarved bounds a verdict that was reached by waiting, where QEMU itself waited for a processor
// half of the time or more.
func (v Verdict) unlessStarved(pid int, began time.Time) Verdict {
	if vmm.Waited(pid) >= time.Since(began)/2 {
		v.Why += "; the host was busy"
		v.Until = v.At.Add(busyFor)
	}
	return v
}

// holds says whether a verdict need not be found anew yet. One of a time to come is of a
// clock that has been set back since, and would hold for as long more.
func (v Verdict) holds(now time.Time) bool {
	return v.Until.IsZero() || !now.Before(v.At) && !now.After(v.Until)
}
