package cli

import (
	"golang.org/x/sys/unix"

	"banger"
)

// hostMemoryMiB is the host's RAM. Where it cannot be told, the daemon is
// left to judge.
func hostMemoryMiB() int64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return int64(banger.TiB)
	}
	return int64(info.Totalram) * int64(info.Unit) / banger.MiB
}
