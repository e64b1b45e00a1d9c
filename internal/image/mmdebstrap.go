package image

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"banger"
	"banger/internal/ext4"

	"golang.org/x/sys/unix"
)

// mmdebstrap is one run of it.
type mmdebstrap struct {
	args     []string
	sources  string   // deb822, for its standard input
	scratch  string   // where it unpacks
	lock     *os.File // held until the last of its processes has ended
	proxies  []string // of who asks, KEY=VALUE
	progress func(stage string)
}

// stopGrace is how long it may take to clean up after itself when it is
// cancelled. Removing a tree takes it a few seconds.
const stopGrace = 20 * time.Second

// supervised runs it in a process group with a watcher, which ends the group
// when descriptor 3 closes because banger has died. A parent-death signal
// would not do: it reaches the first process only, and that one ignores it.
// It gives the group the time to clean up, as long as its first process lives.
// Descriptor 4 is the lock. The watcher does not keep it, the others do, so
// that a new build begins when they are gone.
const supervised = `(exec 4<&- >/dev/null 2>&1; trap "" TERM; read -r _ <&3; kill -TERM 0
  i=0; while [ $i -lt 20 ] && kill -0 $$; do sleep 1; i=$((i+1)); done; kill -KILL 0) &
exec mmdebstrap "$@" 3<&-`

// into turns the tar that it writes into a file system as it comes.
func (m mmdebstrap) into(ctx context.Context, rootfs string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	alive, aliveEnd, err := os.Pipe()
	if err != nil {
		return err
	}
	defer aliveEnd.Close()
	messages := &messageWriter{progress: m.progress}
	cmd := m.command(ctx, alive, messages)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	err = cmd.Start()
	alive.Close()
	if err != nil {
		return banger.Errorf(banger.Unavailable, "cannot run mmdebstrap: %w", err)
	}
	writeErr := ext4.FromTar(ctx, out, rootfs, ext4.Options{Unique: true})
	if writeErr != nil {
		cancel()
	}
	_, _ = io.Copy(io.Discard, out) // what follows the end of the archive
	runErr := cmd.Wait()
	// The watcher is still of the group, so the group's number is still its own.
	_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	return buildError(runErr, writeErr, messages)
}

func (m mmdebstrap) command(ctx context.Context, alive *os.File, messages io.Writer) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", supervised, "sh"}, m.args...)...)
	cmd.Dir = "/"
	cmd.Env = append(append(os.Environ(), m.proxies...), "LC_ALL=C.UTF-8", "TMPDIR="+m.scratch, "DEBIAN_FRONTEND=noninteractive")
	cmd.Stdin = strings.NewReader(m.sources)
	cmd.Stderr = messages
	cmd.ExtraFiles = []*os.File{alive, m.lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() == 0 {
		// As root it mounts in the tree: in a mount namespace of its own,
		// which goes with it, nothing is ever mounted where we remove.
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGTERM) }
	cmd.WaitDelay = stopGrace
	return cmd
}

// buildError picks the error to tell of: a tar that breaks off is
// mmdebstrap's failure if it said why.
func buildError(runErr, writeErr error, messages *messageWriter) error {
	if errors.Is(writeErr, unix.ENOSPC) {
		return banger.Errorf(banger.NoSpace, "there is no space left: %w", writeErr)
	}
	if runErr != nil && (writeErr == nil || messages.errors() != "") {
		return withoutPrivileges(failure(messages.tail(runErr)))
	}
	return writeErr
}

// failure tells what mmdebstrap said. Apt's own words for a source that does not
// answer are among them.
func failure(said string) *banger.Error {
	if strings.Contains(said, "Failed to fetch") {
		return banger.Errorf(banger.Unavailable, "the host's package sources cannot be reached: mmdebstrap failed: %s", said).
			Hint("sudo apt-get update")
	}
	return banger.Errorf(banger.Unavailable, "mmdebstrap failed: %s", said)
}

// withoutPrivileges adds why a build fails in the service that banger system
// installs: it may gain no privileges, which newuidmap needs. A daemon that starts
// by itself may.
func withoutPrivileges(e *banger.Error) *banger.Error {
	if forbidden, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err == nil && forbidden == 1 {
		e.Hint("the service may not build images: banger system uninstall && banger image pull %s && banger system install", banger.DefaultImage)
	}
	return e
}
