package template

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"time"
)

// A guest has settled when its VMM has used next to no CPU for a while. One
// that never does is saved as it is after the limit.
const (
	quietFor    = 300 * time.Millisecond
	quietTicks  = 1 // of 10 ms
	settleLimit = 10 * time.Second
)

func settle(ctx context.Context, pid int) error {
	tick := time.NewTicker(quietFor)
	defer tick.Stop()
	before, err := cpuTicks(pid)
	for deadline := time.Now().Add(settleLimit); err == nil && time.Now().Before(deadline); {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		var now int
		if now, err = cpuTicks(pid); now-before <= quietTicks {
			break
		}
		before = now
	}
	return err
}

// cpuTicks is the CPU time of a process so far.
func cpuTicks(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("cannot read /proc/%d/stat", pid)
	}
	user, err1 := strconv.Atoi(string(fields[11]))
	system, err2 := strconv.Atoi(string(fields[12]))
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("cannot read /proc/%d/stat", pid)
	}
	return user + system, nil
}
