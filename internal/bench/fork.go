package bench

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"banger/internal/ext4"
	"banger/internal/vmm"
)

// ForkAndExec is a fork by hand of the machine, which runs and runs on: its memory
// and disk are copied, a child is restored from them, and runs a command.
func (f *Floor) ForkAndExec() (err error) {
	dir, err := os.MkdirTemp(f.dir, "fork-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	memory, err := vmm.NewMemory()
	if err != nil {
		return err
	}
	defer memory.Close()
	state := filepath.Join(dir, "state")
	cfg, err := f.save(dir, vmm.Saved{State: state, Into: memory})
	if err != nil {
		return err
	}
	return f.restoreAndExec(cfg, vmm.Source{Memory: memory, State: state}, f.token)
}

// save saves the machine, lets it run on, and describes its copy.
func (f *Floor) save(dir string, to vmm.Saved) (vmm.Config, error) {
	ctx, cancel := context.WithTimeout(f.ctx, limit)
	defer cancel()
	cfg := f.launch.Machine
	cfg.Disks = slices.Clone(cfg.Disks)
	err := f.m.Save(ctx, to, func() error {
		for i, d := range cfg.Disks {
			if d.ReadOnly {
				continue
			}
			cfg.Disks[i].Path = filepath.Join(dir, d.Serial)
			if err := ext4.Copy(ctx, d.Path, cfg.Disks[i].Path); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = errors.Join(vmm.Seal(to.Into), f.m.Resume(ctx))
	}
	return cfg, err
}
