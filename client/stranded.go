package client

import (
	"context"
	"encoding/json"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/api"
	"banger/internal/paths"
)

// stranded names a daemon that runs and cannot be connected to, since its socket went
// with its directory, as the user's does when he logs out. The lock is looked at with the
// turn to start one: a daemon on its way up has it before it has a socket, and would take
// our look for another daemon's hold.
func stranded(ctx context.Context, dirs paths.Dirs) error {
	w, err := whereabouts(dirs)
	if err != nil || w.Socket == "" || w.Stopping || !missing(w.Socket) {
		return nil
	}
	turn, err := takeTurn(ctx, dirs)
	if err != nil {
		return nil // nothing is known
	}
	defer turn.Close()
	if now, err := whereabouts(dirs); err != nil || now != w || !locked(dirs.DaemonLock()) {
		return nil
	}
	return banger.Errorf(banger.Conflict, "cannot reach the daemon (pid %d) that runs for %s: its socket %s is gone", w.PID, dirs.State, w.Socket).
		Hint("kill %d ends it; VMs go on, and the next command starts another", w.PID)
}

// whereabouts is what the lock file says: nothing where it is empty or half written.
func whereabouts(dirs paths.Dirs) (w api.Whereabouts, err error) {
	text, err := os.ReadFile(dirs.DaemonLock())
	if err == nil && json.Unmarshal(text, &w) != nil {
		w = api.Whereabouts{}
	}
	return w, err
}

func missing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)
}

// locked says whether somebody has the lock of a file to himself.
func locked(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}
