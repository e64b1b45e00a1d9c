package client

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/paths"
)

// startService has the service start the daemon, one client after the other: to
// start it twice is to end the first. Its daemon takes the turn, so nobody
// here may have it then.
func startService(ctx context.Context, dirs paths.Dirs, o Options) error {
	alone, err := takeState(ctx, dirs)
	if err != nil {
		return err
	}
	defer alone.Close()
	if none, err := noneIsLeft(ctx, dirs); !none || err != nil {
		return err
	}
	within, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	o.Service(within)
	if ctx.Err() != nil {
		return banger.Errorf(banger.Cancelled, "cancelled while the service starts the daemon")
	}
	return nil
}

// takeState waits until no other client has the service start a daemon: it
// holds the state directory itself.
func takeState(ctx context.Context, dirs paths.Dirs) (*os.File, error) {
	if err := makeState(dirs); err != nil {
		return nil, err
	}
	f, err := os.Open(dirs.State)
	if err != nil {
		return nil, banger.Errorf(banger.Unavailable, "cannot read the state directory: %w", err).
			Hint("set XDG_STATE_HOME to a directory of your own")
	}
	if err := flock(ctx, f, unix.LOCK_EX); err != nil {
		f.Close()
		return nil, banger.Errorf(banger.Cancelled, "cancelled while another command starts the daemon")
	}
	return f, nil
}

// goneTime bounds the wait for the end of a daemon that cannot be reached. One
// that outlives its socket never ends by itself: who then starts as another is told.
const goneTime = 15 * time.Second

// noneIsLeft says whether no daemon runs and none is starting, once the last
// one has let go of everything or had its time for that.
func noneIsLeft(ctx context.Context, dirs paths.Dirs) (bool, error) {
	turn, err := takeTurn(ctx, dirs)
	if err != nil {
		return false, err
	}
	defer turn.Close()
	conn, _, err := running(ctx, dirs)
	if err == nil {
		conn.Close()
	}
	if !errors.Is(err, errNoDaemon) {
		return false, err
	}
	within, cancel := context.WithTimeout(ctx, goneTime)
	defer cancel()
	if err := ended(within, dirs); err != nil && ctx.Err() != nil {
		return false, err
	}
	return true, nil
}
