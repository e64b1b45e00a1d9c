package workspace

import (
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// room is a directory for temporary files. It is locked as long as the process
// lives, so that others can tell one that was left by a process that was killed.
type room struct {
	dir  string
	lock *os.File
}

const roomPattern = "banger-workspace-*"

// newRoom makes one, and clears away what killed processes left.
func newRoom() (*room, error) {
	clearRooms(time.Minute)
	dir, err := os.MkdirTemp("", roomPattern)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(dir)
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	return &room{dir, f}, nil
}

func (r *room) close() {
	_ = os.RemoveAll(r.dir)
	_ = r.lock.Close()
}

// clearRooms removes those of ours that nobody holds. A young one may be about to
// be locked.
func clearRooms(young time.Duration) {
	found, _ := filepath.Glob(filepath.Join(globbed(os.TempDir()), roomPattern))
	for _, dir := range found {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < young {
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Getuid() {
			continue
		}
		f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
		if err != nil {
			continue
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			_ = os.RemoveAll(dir)
		}
		_ = f.Close()
	}
}
