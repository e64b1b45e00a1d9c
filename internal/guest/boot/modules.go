package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// loadEarlyModules loads the files that dir/order names and removes them, so
// that the initramfs gives their memory back.
func loadEarlyModules(dir string) error {
	order, err := os.ReadFile(filepath.Join(dir, "order"))
	if err != nil {
		return err
	}
	var errs []error
	for name := range strings.FieldsSeq(string(order)) {
		file := filepath.Join(dir, name)
		errs = append(errs, loadModule(file, ""), os.Remove(file))
	}
	return errors.Join(errs...)
}

// loadModule loads one module file. One that is loaded already is fine.
func loadModule(file, params string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := ignoring(unix.FinitModule(int(f.Fd()), params, 0), unix.EEXIST); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	return nil
}

func (s *System) mountModules() error {
	dev, err := s.disk("modules")
	if err != nil {
		return err
	}
	if err := os.MkdirAll("/lib/modules", 0o755); err != nil {
		return err
	}
	return mount(dev, "/lib/modules", "ext4", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "noload")
}

// offerModprobe shows the agent's executable at AgentPath, without a copy,
// and makes it the kernel's modprobe.
func offerModprobe() error {
	if err := os.MkdirAll(filepath.Dir(AgentPath), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(AgentPath, nil, 0o755); err != nil {
		return err
	}
	if err := mount("/proc/self/exe", AgentPath, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return os.WriteFile("/proc/sys/kernel/modprobe", []byte(AgentPath), 0)
}
