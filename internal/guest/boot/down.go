package boot

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Down makes everything written so far safe and the file systems read-only.
// It is to be called when no process is left.
func (s *System) Down() error {
	unix.Sync()
	s.remount.Lock()
	defer s.remount.Unlock()
	s.ending = true
	unmountAll()
	if s.Disk == nil {
		return nil
	}
	err := errors.Join(
		mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""),
		mount("", procPath(s.Disk), "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	if err == nil {
		return nil
	}
	// Something still writes. A frozen file system is as clean as a
	// read-only one, and no writer can hold it open.
	unix.Sync()
	if unix.IoctlSetInt(int(s.Disk.Fd()), fiFreeze, 0) == nil {
		return nil
	}
	return err
}

const fiFreeze = 0xc0045877 // FIFREEZE, _IOWR('X', 119, int)

// unmountAll unmounts what the user mounted, the last first, as far as it
// goes: a file system on a loop device must be flushed before the disk.
func unmountAll() {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	points := mountPoints(string(table))
	for i := len(points) - 1; i >= 0; i-- {
		if !keptMount(points[i]) {
			_ = unix.Unmount(points[i], 0)
		}
	}
}

// keptMount says which mounts stay until the end: nothing is lost with them.
func keptMount(point string) bool {
	for _, keep := range []string{"/proc", "/sys", "/dev", "/run"} {
		if point == keep || strings.HasPrefix(point, keep+"/") {
			return true
		}
	}
	return point == "/"
}

// mountPoints reads them from a mountinfo table.
func mountPoints(table string) []string {
	var points []string
	for line := range strings.Lines(table) {
		if f := strings.Fields(line); len(f) > 4 {
			points = append(points, unescape(f[4]))
		}
	}
	return points
}

// unescape undoes the kernel's octal escapes of blanks and backslashes.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
