package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/api"
	"banger/internal/paths"
)

// lock is the daemon's hold on its state directory.
type lock struct{ file *os.File }

// claim takes the state directory, or says who has it. Starts happen one
// after the other (see turn), so a holder either answers or is ending, and its end
// is waited for: its text is gone or says so, or it was killed and nobody listens.
func claim(ctx context.Context, dirs paths.Dirs) (*lock, error) {
	f, err := os.OpenFile(dirs.DaemonLock(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, banger.Errorf(banger.Unavailable, "cannot open %s: %w", dirs.DaemonLock(), reason(err))
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		if holder := whereabouts(f); holder.PID != 0 && !holder.Stopping {
			if there := reach(holder.Socket); !errors.Is(there, unix.ECONNREFUSED) {
				f.Close()
				return nil, taken(holder, dirs, there)
			}
		}
		err = flock(ctx, f)
	}
	if err != nil {
		f.Close()
		return nil, banger.Wrap(err, "cannot lock %s", dirs.DaemonLock())
	}
	return &lock{f}, nil
}

// reach connects to a daemon's socket, and refused is that nobody listens. A process
// that is killed closes one file after the other, its lock perhaps last.
func reach(socket string) error {
	conn, err := net.Dial("unix", socket)
	if err == nil {
		_ = conn.Close()
	}
	return err
}

// taken says who has the state directory, there being what came of connecting to
// it. A socket goes from under a daemon with its directory, as the user's does when
// he logs out; the daemon does not end by that, and cannot be asked to.
func taken(by api.Whereabouts, dirs paths.Dirs, there error) error {
	if errors.Is(there, unix.ENOENT) {
		return banger.Errorf(banger.AlreadyExists, "cannot start: a daemon (pid %d) runs for %s already, and its socket %s is gone", by.PID, dirs.State, by.Socket).
			Hint("kill %d", by.PID)
	}
	return banger.Errorf(banger.AlreadyExists, "cannot start: a daemon (pid %d) runs for %s already, on %s", by.PID, dirs.State, by.Socket).
		Hint("banger daemon status").Hint("banger daemon stop")
}

// turn waits until nobody else is starting a daemon for this state directory.
// A client that started this one took the turn for it and passed it on.
func turn(ctx context.Context, dirs paths.Dirs) (*os.File, error) {
	if f := inherited(api.StartFD); f != nil {
		return f, nil
	}
	f, err := os.OpenFile(dirs.DaemonStart(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, banger.Errorf(banger.Unavailable, "cannot open %s: %w", dirs.DaemonStart(), reason(err))
	}
	if err := flock(ctx, f); err != nil {
		f.Close()
		return nil, banger.Wrap(err, "cannot lock %s", dirs.DaemonStart())
	}
	return f, nil
}

// flock waits for a lock without looking again and again. Where ctx ends
// first the waiting goroutine remains until the lock is free; the process is
// about to end then.
func flock(ctx context.Context, f *os.File) error {
	done := make(chan error, 1)
	go func() {
		for {
			err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
			if !errors.Is(err, unix.EINTR) {
				done <- err
				return
			}
		}
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func whereabouts(f *os.File) (w api.Whereabouts) {
	b := make([]byte, 16<<10)
	n, _ := f.ReadAt(b, 0)
	_ = json.Unmarshal(b[:n], &w) // empty or half written: nothing is known
	return w
}

// say replaces the text of the lock.
func (l *lock) say(w api.Whereabouts) error {
	text := api.Marshal(w)
	if err := l.file.Truncate(0); err != nil {
		return err
	}
	_, err := l.file.WriteAt(text, 0)
	return err
}

// release ends the hold. The file stays: removing it would let two daemons
// lock two files of one name.
func (l *lock) release() error {
	err := l.file.Truncate(0)
	return errors.Join(err, l.file.Close())
}

// inherited is the descriptor a starting client named in a variable, or nil.
// Neither the variable nor the descriptor goes on to our own children.
func inherited(variable string) *os.File {
	value := os.Getenv(variable)
	os.Unsetenv(variable)
	fd, err := strconv.Atoi(value)
	if err != nil || fd < 3 {
		return nil
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), variable)
}
