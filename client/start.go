package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/api"
	"banger/internal/paths"
)

// startTime bounds the wait for a daemon's first word. It starts in a few
// milliseconds; after a crash it looks at every VM first, and it may have to
// wait for the end of one that is stopping.
const startTime = 90 * time.Second

// takeTurn waits until nobody else is starting a daemon.
func takeTurn(ctx context.Context, dirs paths.Dirs) (*os.File, error) {
	if err := makeState(dirs); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(dirs.DaemonStart(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, banger.Errorf(banger.Unavailable, "cannot write in the state directory: %w", err).
			Hint("set XDG_STATE_HOME to a directory you can write")
	}
	if err := flock(ctx, f, unix.LOCK_EX); err != nil {
		f.Close()
		return nil, banger.Errorf(banger.Cancelled, "cancelled while another command starts the daemon")
	}
	return f, nil
}

func makeState(dirs paths.Dirs) error {
	if err := os.MkdirAll(dirs.State, 0o700); err != nil {
		return banger.Errorf(banger.Unavailable, "cannot make the state directory: %w", err).
			Hint("set XDG_STATE_HOME to a directory you can write")
	}
	return nil
}

// ended waits for the end of a daemon, which lets go of its lock last.
func ended(ctx context.Context, dirs paths.Dirs) error {
	f, err := os.Open(dirs.DaemonLock())
	if err != nil {
		return nil
	}
	defer f.Close()
	if flock(ctx, f, unix.LOCK_SH) != nil {
		return banger.Errorf(banger.Cancelled, "cancelled while the daemon stops")
	}
	return nil
}

// flock waits for a lock. Where ctx ends first, the waiting goroutine stays
// behind until the lock is free.
func flock(ctx context.Context, f *os.File, how int) error {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		err := unix.Flock(fd, how)
		for errors.Is(err, unix.EINTR) {
			err = unix.Flock(fd, how)
		}
		unix.Close(fd) // before the word: until then the lock outlives f
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// start runs `EXE daemon run` in a session of its own and waits for its first
// word. The daemon is given the turn too, so that nobody else starts one
// while this one comes up, even if this process dies.
func start(ctx context.Context, dirs paths.Dirs, o Options, turn *os.File) error {
	log, err := os.OpenFile(dirs.DaemonLog(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return banger.Errorf(banger.Unavailable, "cannot open the daemon's log: %w", err)
	}
	defer log.Close()
	hear, speak, err := os.Pipe()
	if err != nil {
		return err
	}
	defer hear.Close()
	defer speak.Close()

	cmd := exec.Command(o.Exe, "daemon", "run")
	if o.Exe == "" {
		cmd = exec.Command("/proc/self/exe", "daemon", "run") // its path may lead to a newer file
		cmd.Args[0] = os.Args[0]
	}
	cmd.Env = append(environment(), api.ReadyFD+"=3", api.StartFD+"=4")
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{speak, turn}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return banger.Errorf(banger.Unavailable, "cannot start the daemon: %w", err)
	}
	go func() { _ = cmd.Wait() }() // it outlives a command, and is reaped in what lives longer
	speak.Close()
	return firstWord(ctx, hear, dirs)
}

func firstWord(ctx context.Context, hear *os.File, dirs paths.Dirs) error {
	_ = hear.SetReadDeadline(time.Now().Add(startTime))
	defer context.AfterFunc(ctx, func() { _ = hear.SetReadDeadline(time.Unix(1, 0)) })()
	line, err := bufio.NewReader(hear).ReadBytes('\n')
	var ready api.Ready
	if err == nil {
		err = json.Unmarshal(line, &ready)
	}
	switch {
	case err == nil && ready.Error == nil:
		return nil
	case err == nil:
		return banger.Wrap(ready.Error.Err(), "cannot start the daemon")
	case ctx.Err() != nil:
		return banger.Errorf(banger.Cancelled, "cancelled while the daemon starts")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return banger.Errorf(banger.Unavailable, "the daemon did not come up within %s", startTime).Hint("its log is %s", dirs.DaemonLog())
	}
	return banger.Errorf(banger.Unavailable, "the daemon ended without a word while it started").Hint("its log is %s", dirs.DaemonLog())
}

// environment is what a daemon may know of the shell it was started from: not
// its proxies, credentials or language of the moment.
func environment() []string {
	var clean []string
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if passed(name) {
			clean = append(clean, entry)
		}
	}
	return clean
}

func passed(name string) bool {
	if name == api.ReadyFD || name == api.StartFD {
		return false
	}
	return slices.Contains([]string{"PATH", "HOME", "USER", "LANG", "TMPDIR"}, name) ||
		strings.HasPrefix(name, "XDG_") || strings.HasPrefix(name, "BANGER_")
}
