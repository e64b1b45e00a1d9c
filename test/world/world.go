// Package world is a banger installation of a test's own: its own HOME and XDG
// directories, and the built binary run in them. Tests and benchmarks share it.
//
// It knows nothing of banger's insides.
package world

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// World is one installation.
type World struct {
	Home  string
	Bin   string   // the binary under test
	Extra []string // more environment, KEY=VALUE

	lock *os.File // of one that is shared, in turn
}

// Cache is where worlds that stay between runs live: $BANGER_TEST_CACHE, else
// a directory of the user's cache.
func Cache() (string, error) {
	if root := os.Getenv("BANGER_TEST_CACHE"); root != "" {
		return root, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, "banger-test"), nil
}

// OpenShared opens the world of that name that stays between runs, without
// VMs, with kernel and image built. root is the checkout. Until Close or the end of the
// process nobody else may open it, who would remove the VMs.
func OpenShared(root, name string) (*World, error) {
	bin, err := filepath.Abs(filepath.Join(root, "bin", "banger"))
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(bin); err != nil {
		return nil, fmt.Errorf("%s is missing: run make build", bin)
	}
	cache, err := Cache()
	if err != nil {
		return nil, err
	}
	w := &World{Home: filepath.Join(cache, name), Bin: bin}
	if err := os.MkdirAll(w.Home, 0o700); err != nil {
		return nil, err
	}
	if err := w.take(); err != nil {
		return nil, err
	}
	w.Clear()
	return w, w.Furnish()
}

// take locks the world, which ends with this process too.
func (w *World) take() (err error) {
	if w.lock, err = os.Open(w.Home); err != nil {
		return err
	}
	err = unix.Flock(int(w.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("another run has %s: wait for its end, or set BANGER_TEST_CACHE to another directory", w.Home)
	}
	if err != nil {
		_ = w.lock.Close()
	}
	return err
}

// Furnish makes sure that kernel and image are there.
func (w *World) Furnish() error {
	for _, args := range [][]string{{"kernel", "pull", "debian-cloud"}, {"image", "pull", "debian-bookworm"}} {
		if r := w.Banger(args...); r.Status != 0 {
			return fmt.Errorf("banger %s: %s", strings.Join(args, " "), r.Stderr)
		}
	}
	return nil
}

// State is the state directory.
func (w *World) State() string { return filepath.Join(w.Home, ".local/state/banger") }

// Env is the environment of the world's commands.
func (w *World) Env() []string {
	env := []string{
		"HOME=" + w.Home, "PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "USER=tester",
		"TMPDIR=" + os.TempDir(),
		"XDG_RUNTIME_DIR=" + filepath.Join(w.Home, "run"),
	}
	return append(env, w.Extra...)
}

// Clear removes every VM.
func (w *World) Clear() {
	r := w.Banger("ps", "-a", "-q")
	if ids := strings.Fields(r.Stdout); r.Status == 0 && len(ids) > 0 {
		w.Banger(append([]string{"rm", "-f"}, ids...)...)
	}
}

// Close removes every VM and ends the daemon.
func (w *World) Close() {
	w.Clear()
	w.Banger("daemon", "stop", "--force")
	_ = w.lock.Close() // nil for a world of one's own
}

// Command prepares a banger command. One that hangs is ended in the end.
func (w *World) Command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	context.AfterFunc(ctx, cancel)
	cmd := exec.CommandContext(ctx, w.Bin, args...)
	cmd.Env = w.Env()
	cmd.Dir = w.Home
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// Result is what a command left behind.
type Result struct {
	Stdout, Stderr string
	Status         int
}

// Banger runs a command to its end, with an empty stdin.
func (w *World) Banger(args ...string) Result { return Finish(w.Command(args...)) }

// Finish runs a prepared command to its end and keeps its output, but for a
// stdout that is set already.
func Finish(cmd *exec.Cmd) Result {
	var stdout, stderr bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &stdout
	}
	cmd.Stderr = &stderr
	err := cmd.Run()
	r := Result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.Stderr += err.Error()
		r.Status = -1
	}
	return r
}
