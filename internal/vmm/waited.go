package vmm

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Waited is how long the thread of a process has been ready to run and has not run that
// waited longest; 0 where the kernel does not say.
func Waited(pid int) time.Duration { return waited(fmt.Sprintf("/proc/%d/task", pid)) }

func waited(tasks string) (longest time.Duration) {
	files, _ := filepath.Glob(filepath.Join(tasks, "*", "schedstat"))
	for _, file := range files {
		text, _ := os.ReadFile(file) // the thread may have ended
		var ran, ready int64
		if _, err := fmt.Sscan(string(text), &ran, &ready); err == nil {
			longest = max(longest, time.Duration(ready))
		}
	}
	return longest
}

// Grace is how much longer than limit a guest may take whose VMM had to wait for a processor:
// as long as it has waited, and three times the limit at most. It is whole seconds.
func Grace(pid int, limit time.Duration) time.Duration {
	return min(Waited(pid), 3*limit).Truncate(time.Second)
}
