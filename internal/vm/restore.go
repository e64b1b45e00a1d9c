package vm

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"banger"
	"banger/internal/artifact"
	"banger/internal/layers"
	"banger/internal/paths"
	"banger/internal/shim"
	"banger/internal/vmm"
)

// RestoreSnapshot implements Service. A snapshot with a memory leaves the VM
// running, one without leaves it stopped. Until the snapshot has proved whole
// nothing is changed.
func (m *Manager) RestoreSnapshot(ctx context.Context, id, snapshot string, force bool, p Progress) (View, error) {
	return m.change(ctx, id, "restore a snapshot of", func(ctx context.Context, row banger.VM) error {
		if err := refuseEphemeral(row); err != nil {
			return err
		}
		all, err := readSnapshots(m.Dirs.VM(id))
		if err != nil {
			return err
		}
		rec, err := findSnapshot(row, snapshot, all)
		if err != nil {
			return err
		}
		return m.restoreSnapshot(ctx, row, rec, force, p)
	})
}

func (m *Manager) restoreSnapshot(ctx context.Context, row banger.VM, rec snapshotRecord, force bool, p Progress) error {
	l, err := m.attach(ctx, row)
	if err != nil {
		return err
	}
	if l != nil && !force {
		return banger.Errorf(banger.Conflict, "it is running, and what it is now would be lost").
			Hint("banger vm snapshot restore -f %s %s", row.Name, rec.Name).Hint("banger vm snapshot create %s", row.Name)
	}
	p.Stage("check snapshot")
	was, err := m.savedIn(row, rec)
	if err != nil {
		return err
	}
	if was != nil {
		defer was.memory.Close()
	}
	p.Stage("copy disk")
	scratch, err := m.copySnapshot(ctx, row.ID, rec)
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := m.replaceDisk(ctx, row, l, scratch); err != nil || was == nil {
		return err
	}
	err = m.startSaved(ctx, row.ID, was, p)
	return banger.Wrap(err, "its disk is the snapshot's, but it did not start")
}

// savedIn is the machine of a snapshot, proved whole and one that fits; nil
// where it has none.
func (m *Manager) savedIn(row banger.VM, rec snapshotRecord) (*saved, error) {
	if !rec.Memory {
		return nil, nil
	}
	dir := m.Dirs.VM(row.ID).Snapshot(rec.ID)
	was := &saved{state: filepath.Join(dir, stateFile), token: rec.Token, driver: rec.Driver, machine: rec.Machine}
	state, err := vmm.ReadState(was.state)
	if err != nil {
		return nil, damaged(err)
	}
	if was.memory, err = sealedMemory(filepath.Join(dir, memoryFile), rec.MemorySum); err != nil {
		return nil, err
	}
	if err := state.Fits(rec.Driver, rec.Machine, was.memory); err != nil {
		return nil, errors.Join(damaged(err), was.memory.Close())
	}
	return was, nil
}

// copySnapshot makes a directory with a copy of a snapshot's disk, and its
// record.
func (m *Manager) copySnapshot(ctx context.Context, id string, rec snapshotRecord) (string, error) {
	path, err := m.scratch(id, "restore")
	if err != nil {
		return "", err
	}
	if err := m.copySnapshotTo(ctx, path, id, rec); err != nil {
		return "", errors.Join(err, os.RemoveAll(path))
	}
	return path, nil
}

func (m *Manager) copySnapshotTo(ctx context.Context, path, id string, rec snapshotRecord) error {
	from := m.Dirs.VM(id).Snapshot(rec.ID)
	if err := layers.Take(ctx, from, path, true, nil); err != nil {
		return fileError(err)
	}
	if err := giveSeed(paths.VM(from), paths.VM(path)); err != nil {
		return err
	}
	if err := rec.write(path); err != nil {
		return err
	}
	return fileError(syncOwn(path))
}

// replaceDisk ends a VM and gives it the disk in made. Begun, it is finished: half
// of it would be a power cut for nothing. With the rename of that directory it
// is decided: whoever comes later finishes it.
func (m *Manager) replaceDisk(ctx context.Context, row banger.VM, l *live, made string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if l != nil {
		if err := m.end(ctx, row, func(s Shim) (shim.Exit, error) { return s.Kill(ctx, syscall.SIGKILL) }); err != nil {
			return err
		}
	}
	if err := artifact.Rename(made, m.Dirs.VM(row.ID).Restoring()); err != nil {
		return fileError(err)
	}
	return m.finishRestore(ctx, row.ID)
}

// finishRestore takes a VM to the snapshot it was decided to be taken to, if
// there is one. Begun again from anywhere it comes to the same end. The memory
// of a suspended VM goes first: it must not meet another disk.
func (m *Manager) finishRestore(ctx context.Context, id string) error {
	dir := m.Dirs.VM(id)
	rec, err := readSnapshot(dir.Restoring())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && exists(dir.Suspended()) {
		err = forget(dir)
	}
	if err == nil {
		err = fileError(moveDisk(dir))
	}
	if err == nil {
		err = m.recordRestore(ctx, id, rec)
	}
	if err != nil {
		return err
	}
	done := dir.Scratch("restored")
	if err := os.RemoveAll(done); err != nil {
		return fileError(err)
	}
	if err := artifact.Rename(dir.Restoring(), done); err != nil {
		return fileError(err)
	}
	return fileError(os.RemoveAll(done))
}

// moveDisk puts the disk that waits in the place of the VM's. Its files stay
// where they are until all of them have their new names too.
func moveDisk(dir paths.VM) error {
	base, above, err := layers.Of(dir.Restoring())
	if err != nil {
		return err
	}
	names, err := namesIn(string(dir))
	if err != nil {
		return err
	}
	for _, name := range slices.DeleteFunc(names, func(n string) bool { return !isLayer(n) }) {
		if err := os.Remove(filepath.Join(string(dir), name)); err != nil {
			return err
		}
	}
	if err := os.Remove(dir.Disk()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range append([]string{base}, above...) {
		if err := os.Link(filepath.Join(dir.Restoring(), name), filepath.Join(string(dir), name)); err != nil {
			return err
		}
	}
	if err := giveSeed(paths.VM(dir.Restoring()), dir); err != nil {
		return err
	}
	return syncFile(string(dir))
}

// recordRestore writes down that a VM is at a snapshot, and does not run.
func (m *Manager) recordRestore(ctx context.Context, id string, rec snapshotRecord) error {
	row, err := m.Store.VM(ctx, id)
	if err != nil {
		return err
	}
	row.Spec.Snapshot, row.Spec.DiskBytes = rec.ID, rec.DiskBytes
	if rec.Memory {
		row.Spec.VCPU, row.Spec.MemoryMiB = rec.Machine.VCPU, rec.Machine.MemoryMiB
	}
	if row.State != banger.StateCreated {
		row.State = banger.StateStopped
		row.Runtime.LastError = ""
	}
	return m.rewrite(ctx, row)
}

// startSaved starts a VM as a machine that was saved, and as nothing else.
func (m *Manager) startSaved(ctx context.Context, id string, was *saved, p Progress) error {
	watch := newStopwatch()
	row, err := m.Store.VM(ctx, id)
	if err != nil {
		return err
	}
	cfg, err := m.config(p)
	if err != nil {
		return err
	}
	image, err := m.Images.Image(ctx, row.ImageID)
	if err != nil {
		return err
	}
	b, err := m.describe(ctx, row, image, cfg)
	if err != nil {
		return err
	}
	b.asItRan(was.driver, was.machine)
	b.launch.Restore = was.restore()
	watch.mark("reserve")
	b.launch.Trace = watch.phases
	l, err := m.begin(ctx, row, b, p)
	if err != nil {
		return err
	}
	err = m.awaitReady(ctx, row, l, p)
	if l.ended() {
		err = errors.Join(err, m.recordEnd(ctx, id, nil))
	}
	return err
}
