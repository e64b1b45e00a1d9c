package guest

import (
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	"banger/internal/guestwire"

	"golang.org/x/sys/unix"
)

// changes counts the files that were changed since a moment of this guest's
// clock, or gives a moment to count from.
func (a *agent) changes(c guestwire.Changes) (guestwire.Changed, error) {
	dirs := a.machine.layers()
	if len(dirs) == 0 {
		return guestwire.Changed{}, failf("unavailable", "cannot count changes: this guest has no disk of its own")
	}
	if c.SinceNanos == 0 {
		return guestwire.Changed{TimeNanos: nextTick()}, nil
	}
	r := guestwire.Changed{TimeNanos: c.SinceNanos}
	for _, dir := range dirs {
		n, err := countChanged(dir, c.SinceNanos)
		if err != nil {
			return r, err
		}
		r.Files += n
	}
	return r, nil
}

// nextTick waits until the kernel's clock for files, which moves in steps, has
// come past this moment: nothing that was written before has that time, also
// where a kernel takes the time of some files to the nanosecond, and all that is
// written from now on has it or a later one.
func nextTick() int64 {
	for begun := clock(unix.CLOCK_REALTIME); ; time.Sleep(time.Millisecond) {
		if now := clock(unix.CLOCK_REALTIME_COARSE); now > begun {
			return now
		}
	}
}

func clock(id int32) int64 {
	var now unix.Timespec
	_ = unix.ClockGettime(id, &now)
	return now.Nano()
}

// countChanged counts files that were made, written, moved or removed in a
// layer. A removed file of the layer below is there as a device 0:0, and the
// kernel gives one inode to all of those: so it is its directory that must have
// changed.
func countChanged(dir string, since int64) (n int, err error) {
	recent := map[string]bool{}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return ignoreGone(err)
		}
		info, err := d.Info()
		if err != nil {
			return ignoreGone(err)
		}
		st := sysStat(info)
		switch {
		case d.IsDir():
			recent[path] = st.Mtim.Nano() >= since
		case st.Ctim.Nano() < since:
		case st.Mode&syscall.S_IFMT != syscall.S_IFCHR || st.Rdev != 0 || recent[filepath.Dir(path)]:
			n++
		}
		return nil
	})
	return n, err
}

// ignoreGone: files come and go while they are counted.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
