package vm

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/artifact"
	"banger/internal/ext4"
	"banger/internal/paths"
	"banger/internal/template"
)

// makeDir makes the directory of a new VM under another name and moves it to
// its place when it is whole. b is how it begins, perhaps as a template.
func (m *Manager) makeDir(ctx context.Context, vm banger.VM, b *begin) error {
	dir := m.newDir(vm.ID)
	if err := os.MkdirAll(m.Dirs.VMs(), 0o700); err != nil {
		return fileError(err)
	}
	if err := os.Mkdir(string(dir), 0o700); err != nil {
		return fileError(err)
	}
	if err := hold(dir, vm); err != nil {
		return err
	}
	err := m.makeDisk(ctx, dir.Disk(), vm.Spec.DiskBytes, b.fork)
	if b.lostFork(err) {
		err = m.makeDisk(ctx, dir.Disk(), vm.Spec.DiskBytes, nil)
	}
	if err != nil {
		return err
	}
	if vm.Spec.Ephemeral { // of which a power cut may leave as much as it likes
		return fileError(os.Rename(string(dir), string(m.Dirs.VM(vm.ID))))
	}
	if err := syncFile(dir.Disk()); err != nil {
		return fileError(err)
	}
	return fileError(artifact.Rename(string(dir), string(m.Dirs.VM(vm.ID))))
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// makeDisk copies a disk: the template's, which the guest may enlarge, or an empty
// one of the right size from the cache, since mkfs takes longer than all the
// rest of a creation.
func (m *Manager) makeDisk(ctx context.Context, path string, size int64, fork *template.Fork) error {
	if fork != nil {
		err := ext4.Copy(ctx, fork.Disk(), path)
		if err == nil {
			err = ext4.Grow(path, size)
		}
		return fileError(err)
	}
	empty := m.Dirs.EmptyDisk(size)
	err := ext4.Copy(ctx, empty, path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(empty), 0o700); err != nil {
			return fileError(err)
		}
		if err := ext4.MakeEmpty(ctx, empty, size); err != nil {
			return fileError(err)
		}
		err = ext4.Copy(ctx, empty, path)
	}
	return fileError(err)
}

// forkDisk gives a VM that never ran the template's disk instead of its empty
// one, which it keeps where the template is gone.
func (m *Manager) forkDisk(ctx context.Context, dir paths.VM, size int64, b *begin) error {
	const made = ".tmp-disk"
	path := filepath.Join(string(dir), made)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fileError(err)
	}
	err := m.makeDisk(ctx, path, size, b.fork)
	if b.lostFork(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return fileError(os.Rename(path, dir.Disk()))
}

// removeUnfinished removes a directory that never came to its place. It has
// our vm.json perhaps not yet, so only what makeDir and makeForkDir put there is
// removed.
func removeUnfinished(dir paths.VM) error {
	names, err := namesIn(string(dir))
	if errors.Is(err, unix.ENOTDIR) { // what is around is no directory
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		path := filepath.Join(string(dir), name)
		made := path == dir.Record() || path == dir.Disk() || path == dir.Seed()
		if !made && !isLayer(name) && !strings.HasPrefix(name, paths.ScratchPrefix) {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fileError(err)
		}
	}
	if err := os.Remove(string(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fileError(err)
	}
	return nil
}
