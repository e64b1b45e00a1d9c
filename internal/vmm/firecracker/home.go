package firecracker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"banger/internal/vmm"
)

// What is in a machine's home.
const (
	apiName   = "api"
	vsockName = "vsock"
)

// homePrefix begins the names of homes in the directory of a VM.
const homePrefix = ".firecracker-"

// home is the directory of a machine's sockets. Whoever has it holds a lock on it; one that
// nobody holds was left by a process that was killed.
type home struct {
	dir  *os.File
	name string // in the VM's directory

	mu     sync.RWMutex // of whoever needs dir to be open
	closed bool
}

// openHome makes one, and removes those that were left.
func openHome(cfg vmm.Config) (*home, error) {
	sweepHomes(cfg.Dir)
	for {
		path, err := os.MkdirTemp(cfg.Dir, homePrefix)
		if err != nil {
			return nil, err
		}
		dir, err := lockDir(path)
		if err == nil {
			if _, err = os.Stat(path); err == nil {
				return &home{dir: dir, name: filepath.Base(path)}, nil
			}
			_ = dir.Close()
		}
		// Or else somebody who swept took it for one that was left.
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, os.ErrNotExist) {
			return nil, errors.Join(err, os.Remove(path))
		}
	}
}

func lockDir(path string) (*os.File, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = dir.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return dir, nil
}

func sweepHomes(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, homePrefix+"*"))
	for _, path := range left {
		if f, err := lockDir(path); err == nil {
			_ = os.RemoveAll(path)
			_ = f.Close()
		}
	}
}

func (h *home) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	return errors.Join(os.RemoveAll(h.dir.Name()), h.dir.Close())
}

// inside is a path as Firecracker sees it, whose working directory is the VM's. It is short,
// as the names of sockets must be.
func (h *home) inside(name string) string { return filepath.Join(h.name, name) }

// dial connects to a socket by a path as this process sees it, short too. It may be
// called when the home has gone: a client of the API dials by itself.
func (h *home) dial(ctx context.Context, name string) (net.Conn, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.closed {
		return nil, net.ErrClosed
	}
	var d net.Dialer
	return d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", h.dir.Fd(), name))
}

// dialAPI connects to Firecracker's API.
func (h *home) dialAPI(ctx context.Context) (net.Conn, error) { return h.dial(ctx, apiName) }

// dialAgent connects to the agent. A guest's own connections lead nowhere: there is no
// socket of the name that Firecracker would look for.
func (h *home) dialAgent(ctx context.Context) (io.ReadWriteCloser, error) {
	conn, err := h.dial(ctx, vsockName)
	if err != nil {
		return nil, err
	}
	return &agentConn{Conn: conn}, nil
}
