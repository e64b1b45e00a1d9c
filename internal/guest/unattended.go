package guest

import (
	"sync"
	"time"

	"banger/internal/guestwire"
)

// unattended counts the commands that run with no stream to anybody: those that were
// detached, and those of a machine that was saved or copied while they ran.
type unattended struct {
	mu      sync.Mutex
	running int
	ended   time.Time // when one last did, zero for never
}

// add counts a command until its end.
func (u *unattended) add(c *child) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.running++
	go func() {
		<-c.done
		u.mu.Lock()
		defer u.mu.Unlock()
		u.running--
		u.ended = time.Now()
	}()
}

// read says how many there are. What has ended since is told by a clock that stands
// still when the machine does.
func (u *unattended) read() guestwire.Unattended {
	u.mu.Lock()
	defer u.mu.Unlock()
	r := guestwire.Unattended{Running: u.running}
	if !u.ended.IsZero() {
		r.EndedMillis = max(1, time.Since(u.ended).Milliseconds())
	}
	return r
}
