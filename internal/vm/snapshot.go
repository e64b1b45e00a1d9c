package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"banger"
	"banger/internal/artifact"
	"banger/internal/layers"
	"banger/internal/paths"
	"banger/internal/shim"
	"banger/internal/vmm"
)

// CreateSnapshot implements Service. The VM is left as it is.
func (m *Manager) CreateSnapshot(ctx context.Context, id, name string, p Progress) (s banger.Snapshot, err error) {
	if name != "" {
		if err := banger.ValidateSnapshotName(name); err != nil {
			return s, err
		}
	}
	_, err = m.change(ctx, id, "take a snapshot of", func(ctx context.Context, row banger.VM) error {
		s, err = m.createSnapshot(ctx, row, name, p)
		return err
	})
	return s, err
}

func (m *Manager) createSnapshot(ctx context.Context, row banger.VM, name string, p Progress) (s banger.Snapshot, err error) {
	if err := refuseEphemeral(row); err != nil {
		return s, err
	}
	l, err := m.attach(ctx, row)
	if err != nil {
		return s, err
	}
	dir := m.Dirs.VM(row.ID)
	if name, err = snapshotName(dir, row.Name, name); err != nil {
		return s, err
	}
	rec := snapshotRecord{Snapshot: banger.Snapshot{
		ID: banger.NewID(), Name: name, CreatedAt: time.Now().UTC(), Parent: row.Spec.Snapshot,
	}}
	made := unfinishedSnapshot(dir, rec.ID)
	if err := os.MkdirAll(made, 0o700); err != nil {
		return s, fileError(err)
	}
	defer os.RemoveAll(made)
	if l != nil {
		err = m.snapshotRunning(ctx, row, l, made, &rec, p)
	} else {
		err = m.snapshotAtRest(ctx, row, made, &rec, p)
	}
	if err != nil {
		return s, err
	}
	p.Stage("write to disk")
	if err := rec.finish(made); err != nil {
		return s, err
	}
	if err := ctx.Err(); err != nil {
		return s, err
	}
	if err := artifact.Publish(made, dir.Snapshot(rec.ID)); err != nil {
		return s, fileError(err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout) // it is there
	defer cancel()
	_, err = m.amend(ctx, row.ID, func(s *banger.Spec) { s.Snapshot = rec.ID })
	return rec.Snapshot, err
}

// unfinishedSnapshot is where a snapshot is while it is made or removed.
func unfinishedSnapshot(dir paths.VM, id string) string {
	return filepath.Join(dir.Snapshots(), paths.ScratchPrefix+id)
}

func (m *Manager) snapshotRunning(ctx context.Context, row banger.VM, l *live, made string, rec *snapshotRecord, p Progress) error {
	was, err := m.save(ctx, row, l, shim.SaveRequest{Dir: made}, p)
	if err != nil {
		return err
	}
	rec.Memory, rec.Token, rec.Driver, rec.Machine = true, was.Token, was.Driver, was.Machine
	rec.MemorySum, err = checksum(filepath.Join(made, memoryFile))
	return err
}

// snapshotAtRest keeps a VM that does not run. A memory is copied: the machine
// that is resumed from it may have a right to write to the file.
func (m *Manager) snapshotAtRest(ctx context.Context, row banger.VM, made string, rec *snapshotRecord, p Progress) error {
	p.Stage("copy disk")
	dir := m.Dirs.VM(row.ID)
	was, err := m.suspended(row.ID)
	if err != nil {
		return err
	}
	if was != nil && was.Sums.Memory == "" {
		return damaged(nil)
	}
	if was != nil {
		for _, name := range []string{memoryFile, stateFile} {
			if err := copyFile(filepath.Join(made, name), filepath.Join(dir.Suspended(), name)); err != nil {
				return err
			}
		}
		rec.Memory, rec.Token, rec.Driver, rec.Machine = true, was.Token, was.Driver, was.Machine
		rec.MemorySum = was.Sums.Memory
	}
	if err := giveSeed(dir, paths.VM(made)); err != nil {
		return err
	}
	return fileError(layers.Take(ctx, string(dir), made, false, nil))
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return fileError(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fileError(err)
	}
	return fileError(errors.Join(vmm.CopySparse(out, in), out.Close()))
}

func checksum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fileError(err)
	}
	defer f.Close()
	sum, err := vmm.Checksum(f)
	return sum, fileError(err)
}

// snapshotName is the name asked for by whoever calls the VM vm, or one of the time, that no other
// snapshot in dir has.
func snapshotName(dir paths.VM, vm, name string) (string, error) {
	all, err := readSnapshots(dir)
	if err != nil {
		return "", err
	}
	taken := func(name string) bool {
		return slices.ContainsFunc(all, func(r snapshotRecord) bool { return r.Name == name })
	}
	if name == "" {
		name = time.Now().UTC().Format("20060102-150405")
		for n, stem := 2, name; taken(name); n++ {
			name = fmt.Sprintf("%s-%d", stem, n)
		}
	}
	if taken(name) {
		return "", banger.Errorf(banger.AlreadyExists, "it has a snapshot %s already", name).Hint("banger vm snapshot list %s", vm)
	}
	return name, nil
}

// Snapshots implements Service: oldest first.
func (m *Manager) Snapshots(ctx context.Context, id string) ([]banger.Snapshot, error) {
	row, err := m.Store.VM(ctx, id)
	if err != nil {
		return nil, err
	}
	records, err := readSnapshots(m.Dirs.VM(id))
	if err != nil {
		return nil, banger.Wrap(err, "cannot list the snapshots of %s", row.Name)
	}
	all := make([]banger.Snapshot, len(records))
	for i, r := range records {
		all[i] = r.Snapshot
	}
	return all, nil
}

// DeleteSnapshot implements Service.
func (m *Manager) DeleteSnapshot(ctx context.Context, id, snapshot string) error {
	_, err := m.change(ctx, id, "delete a snapshot of", func(ctx context.Context, row banger.VM) error {
		dir := m.Dirs.VM(row.ID)
		all, err := readSnapshots(dir)
		if err != nil {
			return err
		}
		rec, err := findSnapshot(row, snapshot, all)
		if err != nil {
			return err
		}
		if err := m.adoptChildren(ctx, row, rec, all); err != nil {
			return err
		}
		going := unfinishedSnapshot(dir, rec.ID)
		if err := artifact.Rename(dir.Snapshot(rec.ID), going); err != nil {
			return fileError(err)
		}
		return fileError(os.RemoveAll(going))
	})
	return err
}

// adoptChildren has what came after a snapshot come after the one before it.
func (m *Manager) adoptChildren(ctx context.Context, row banger.VM, gone snapshotRecord, all []snapshotRecord) error {
	dir := m.Dirs.VM(row.ID)
	for _, r := range all {
		if r.Parent != gone.ID {
			continue
		}
		r.Parent = gone.Parent
		if err := r.write(dir.Snapshot(r.ID)); err != nil {
			return err
		}
	}
	if row.Spec.Snapshot != gone.ID {
		return nil
	}
	_, err := m.amend(ctx, row.ID, func(s *banger.Spec) { s.Snapshot = gone.Parent })
	return err
}

// Unfinished lists what was not finished in a VM's directory when a daemon ended,
// or a shim: where one is alive, some of it may be in its hands and is not named.
func Unfinished(dir paths.VM, alive bool) (left []string, all error) {
	for _, in := range []string{string(dir), dir.Snapshots()} {
		names, err := namesIn(in)
		all = errors.Join(all, err)
		for _, name := range names {
			what, unfinished := strings.CutPrefix(name, paths.ScratchPrefix)
			if unfinished && !(alive && in == string(dir) && !daemons(what)) {
				left = append(left, filepath.Join(in, name))
			}
		}
	}
	return left, all
}

// sweep removes what is unfinished.
func sweep(dir paths.VM, alive bool) error {
	left, all := Unfinished(dir, alive)
	for _, path := range left {
		all = errors.Join(all, os.RemoveAll(path))
	}
	return fileError(all)
}

// daemons says whether a scratch name is one that this package gives.
func daemons(what string) bool {
	kind, _, _ := strings.Cut(what, "-")
	return slices.Contains([]string{"fork", "restore", "restored", "dropped"}, kind)
}
