package guest

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"banger/internal/guestwire"

	"golang.org/x/sys/unix"
)

// ticks is USER_HZ, which is the same everywhere.
const ticks = 100

// stats samples the machine from /proc.
func stats(diskDir string) (guestwire.GuestStats, error) {
	var disk unix.Statfs_t
	if err := unix.Statfs(diskDir, &disk); err != nil {
		return guestwire.GuestStats{}, fmt.Errorf("cannot look at the disk: %w", err)
	}
	memory := memoryInfo(read("/proc/meminfo"))
	return guestwire.GuestStats{
		UptimeSeconds: uptime().Seconds(),
		Load1:         firstNumber(read("/proc/loadavg")),
		MemTotal:      memory["MemTotal"],
		MemUsed:       memory["MemTotal"] - memory["MemAvailable"],
		DiskTotal:     int64(disk.Blocks) * disk.Bsize,
		DiskUsed:      int64(disk.Blocks-disk.Bfree) * disk.Bsize,
		Processes:     countProcesses(),
		CPUSeconds:    busySeconds(read("/proc/stat")),
	}, nil
}

func read(file string) string {
	text, _ := os.ReadFile(file)
	return string(text)
}

func firstNumber(text string) float64 {
	first, _, _ := strings.Cut(text, " ")
	n, _ := strconv.ParseFloat(first, 64)
	return n
}

// memoryInfo reads /proc/meminfo in bytes.
func memoryInfo(text string) map[string]int64 {
	m := map[string]int64{}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 3 && f[2] == "kB" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			m[strings.TrimSuffix(f[0], ":")] = n << 10
		}
	}
	return m
}

// busySeconds is the time all processors were neither idle nor waiting for a
// disk, from the first line of /proc/stat: user, nice, system, idle, iowait,
// irq, softirq, steal; guest time is in user already.
func busySeconds(text string) float64 {
	line, _, _ := strings.Cut(text, "\n")
	f := strings.Fields(line)
	var busy int64
	for i := 1; i < len(f) && i <= 8; i++ {
		if i != 4 && i != 5 {
			n, _ := strconv.ParseInt(f[i], 10, 64)
			busy += n
		}
	}
	return float64(busy) / ticks
}

func countProcesses() (n int) {
	dir, err := os.Open("/proc")
	if err != nil {
		return 0
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if name[0] >= '1' && name[0] <= '9' {
			n++
		}
	}
	return n
}
