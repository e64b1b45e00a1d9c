package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// modulesList names, one per line and in load order, the module files beside
// it in the initramfs.
const modulesList = "/modules/order"

// portDeadline is how long the agent port may take to appear once virtio_mmio
// is loaded; its probe is asynchronous on some kernels.
const portDeadline = 10 * time.Second

// boot does what an init must before the agent port can be opened.
func boot() (console *os.File, port io.ReadWriter, err error) {
	for _, m := range []struct{ kind, dir string }{
		{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"},
	} {
		os.MkdirAll(m.dir, 0o755)
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, ""); err != nil {
			return nil, nil, fmt.Errorf("cannot mount %s: %w", m.dir, err)
		}
	}
	if console, err = os.OpenFile("/dev/console", os.O_WRONLY, 0); err != nil {
		return nil, nil, err
	}
	if err := loadModules(); err != nil {
		return console, nil, err
	}
	if n, given := parameter("banger.vsock"); given {
		port, err = openVsock(n)
	} else {
		port, err = openPort()
	}
	return console, port, err
}

// parameter is a word of the kernel's command line, which the driver gave.
func parameter(key string) (value string, given bool) {
	text, _ := os.ReadFile("/proc/cmdline")
	for word := range strings.FieldsSeq(string(text)) {
		if k, v, _ := strings.Cut(word, "="); k == key {
			value, given = v, true
		}
	}
	return value, given
}

func loadModules() error {
	list, err := os.Open(modulesList)
	if err != nil {
		return err
	}
	defer list.Close()
	for lines := bufio.NewScanner(list); lines.Scan(); {
		if err := loadModule(filepath.Join(filepath.Dir(modulesList), lines.Text())); err != nil {
			return fmt.Errorf("cannot load %s: %w", lines.Text(), err)
		}
	}
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if err == unix.EEXIST {
		return nil
	}
	return err
}

// openPort finds the only virtio port there is.
func openPort() (blocking, error) {
	for deadline := time.Now().Add(portDeadline); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		names, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, name := range names {
			text, _ := os.ReadFile(name)
			if strings.TrimSpace(string(text)) == "" {
				continue
			}
			fd, err := unix.Open("/dev/"+filepath.Base(filepath.Dir(name)), unix.O_RDWR|unix.O_CLOEXEC, 0)
			return blocking(fd), err
		}
	}
	return -1, fmt.Errorf("no virtio port appeared")
}

// blocking is a descriptor read and written by plain blocking calls: an idle
// guest must not poll.
type blocking int

func (b blocking) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(b), p)
		switch {
		case err == unix.EINTR:
			continue
		case n == 0 && err == nil:
			return 0, io.EOF
		}
		return max(n, 0), err
	}
}

// Write writes all of p: a virtio port takes at most 32 KiB at a time and says
// so only by what it returns.
func (b blocking) Write(p []byte) (written int, err error) {
	for written < len(p) {
		n, err := unix.Write(int(b), p[written:])
		if err != nil && err != unix.EINTR {
			return written, err
		}
		written += max(n, 0)
	}
	return written, nil
}
