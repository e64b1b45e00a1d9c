package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/build"
	"banger/internal/paths"
	"banger/internal/peer"
)

// Options says how to meet a daemon.
type Options struct {
	Exe     string           // started as `EXE daemon run`; empty for this executable
	BuildID string           // of the daemon wanted; empty for this executable's
	Warn    func(msg string) // hears of a busy daemon of another build, once; may be nil

	// Service has the service that runs this executable start its daemon, and returns when
	// that is up, or says why it does not: the daemon is started here then. Nil where there
	// is no such service.
	Service func(ctx context.Context)
}

// Connect gives the daemon of a state directory, and starts one where none
// runs. A daemon of another build is replaced at the first request while it
// is idle; a busy one is used, with a warning, if it speaks the same API.
func Connect(ctx context.Context, dirs paths.Dirs, o Options) (*Client, error) {
	if o.BuildID == "" {
		o.BuildID = build.ID()
	}
	conn, socket, err := meet(ctx, dirs, o)
	if err != nil {
		return nil, err
	}
	return newClient(conn, socket, &dirs, o), nil
}

// Find gives the daemon of a state directory, of whatever build, and never
// starts or replaces one: banger.Unavailable where none runs, banger.Conflict where
// one does that nobody can reach.
func Find(ctx context.Context, dirs paths.Dirs) (*Client, error) {
	conn, socket, err := running(ctx, dirs)
	if errors.Is(err, errNoDaemon) {
		if err := stranded(ctx, dirs); err != nil {
			return nil, err
		}
		return nil, banger.Errorf(banger.Unavailable, "no daemon runs for %s", dirs.State).
			Hint("any command that needs one starts it, as banger ps does")
	} else if err != nil {
		return nil, err
	}
	return newClient(conn, socket, &dirs, Options{}), nil
}

// Dial gives the daemon behind a socket.
func Dial(ctx context.Context, socket string) (*Client, error) {
	conn, err := dial(ctx, socket)
	if err != nil {
		return nil, banger.Errorf(banger.Unavailable, "cannot connect to the daemon at %s: %w", socket, err)
	}
	return newClient(conn, socket, nil, Options{}), nil
}

// errNoDaemon says that nobody answers.
var errNoDaemon = errors.New("no daemon")

// meet connects to the daemon of a state directory, after starting it if
// there is none.
func meet(ctx context.Context, dirs paths.Dirs, o Options) (net.Conn, string, error) {
	conn, socket, err := running(ctx, dirs)
	if !errors.Is(err, errNoDaemon) {
		return conn, socket, err
	}
	if o.Service != nil {
		if err := startService(ctx, dirs, o); err != nil {
			return nil, "", err
		}
	}
	turn, err := takeTurn(ctx, dirs)
	if err != nil {
		return nil, "", err
	}
	defer turn.Close()
	// Whoever had the turn before has started one, perhaps, or the service has.
	if conn, socket, err := running(ctx, dirs); !errors.Is(err, errNoDaemon) {
		return conn, socket, err
	}
	if err := start(ctx, dirs, o, turn); err != nil {
		return nil, "", err
	}
	conn, socket, err = running(ctx, dirs)
	if errors.Is(err, errNoDaemon) {
		err = banger.Errorf(banger.Unavailable, "the daemon ended as soon as it had started").Hint("its log is %s", dirs.DaemonLog())
	}
	return conn, socket, err
}

// running connects to the daemon that the lock file names. The text may be
// that of a dead one, which is found out by connecting.
func running(ctx context.Context, dirs paths.Dirs) (net.Conn, string, error) {
	w, err := whereabouts(dirs)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, "", errNoDaemon
	} else if err != nil {
		return nil, "", banger.Errorf(banger.Unavailable, "cannot find the daemon: %w", err)
	}
	if w.Socket == "" || w.Stopping {
		return nil, "", errNoDaemon
	}
	conn, err := dial(ctx, w.Socket)
	switch {
	case err == nil:
		return conn, w.Socket, nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ECONNREFUSED):
		return nil, "", errNoDaemon
	case ctx.Err() != nil:
		return nil, "", banger.Errorf(banger.Cancelled, "cancelled while connecting to the daemon")
	}
	return nil, "", banger.Errorf(banger.Unavailable, "cannot connect to the daemon at %s: %w", w.Socket, err)
}

// maxAddress is what a socket address holds on Linux.
const maxAddress = 107

// dial connects to a socket, however long its path, and makes sure that the
// other end is a daemon of this user's: in /tmp anybody could have put it.
func dial(ctx context.Context, socket string) (net.Conn, error) {
	address := socket
	if len(socket) > maxAddress {
		dir, err := unix.Open(filepath.Dir(socket), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		defer unix.Close(dir)
		address = fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(socket))
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", address)
	if err != nil {
		return nil, err
	}
	if err := trusted(conn.(*net.UnixConn)); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func trusted(conn *net.UnixConn) error {
	uid, err := peer.UID(conn)
	if err != nil {
		return err
	}
	if me := os.Geteuid(); uid != me && me != 0 {
		return banger.Errorf(banger.Unauthorized, "cannot trust the daemon: the process behind its socket belongs to uid %d", uid).
			Hint("set XDG_RUNTIME_DIR to a directory of your own")
	}
	return nil
}
