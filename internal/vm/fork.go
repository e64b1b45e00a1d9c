package vm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/artifact"
)

// Fork implements Service. Copies of a VM with a memory go on where it is,
// others boot. All of them are made or none is, but for those that somebody ends
// meanwhile.
func (m *Manager) Fork(ctx context.Context, id string, f Fork, p Progress) (out Forks, err error) {
	if err := f.Check(); err != nil {
		return out, err
	}
	f.Count = or(f.Count, 1)
	_, err = m.change(ctx, id, "fork", func(ctx context.Context, row banger.VM) error {
		out, err = m.fork(ctx, row, f, p)
		return err
	})
	return out, err
}

// Check refuses what nobody can have, whatever VM it is.
func (f Fork) Check() error {
	if f.Count < 0 || f.Count > banger.MostForks {
		return banger.Errorf(banger.BadRequest, "bad number of forks %d: it must be from 1 to %d", f.Count, banger.MostForks)
	}
	if f.Prefix != "" {
		return banger.ValidateVMName(fmt.Sprintf("%s-%d", f.Prefix, or(f.Count, 1)))
	}
	return nil
}

func (m *Manager) fork(ctx context.Context, row banger.VM, f Fork, p Progress) (out Forks, err error) {
	watch := newStopwatch()
	children, err := m.reserveForks(ctx, row, f, p)
	defer func() { m.letGo(ctx, children, err != nil) }()
	if err != nil {
		return out, err
	}
	watch.mark("reserve")
	scratch, err := m.scratch(row.ID, "fork")
	if err != nil {
		return out, err
	}
	defer os.RemoveAll(scratch)
	o, err := m.originOf(ctx, row, scratch, p)
	if err != nil {
		return out, err
	}
	defer o.close()
	watch.mark("save")
	if err = m.makeForks(ctx, children, o, watch, p); err == nil {
		err = m.startForks(ctx, children, p)
	}
	if err != nil {
		return out, err
	}
	out.Pause = o.pause
	for _, c := range children {
		if !c.kept {
			p.Warn(c.row.Name + removedMeanwhile)
			continue
		}
		v, err := m.Get(ctx, c.row.ID)
		if err != nil {
			return out, err
		}
		out.VMs = append(out.VMs, v)
	}
	return out, nil
}

// scratch makes a directory inside a VM's for what is needed for a while.
func (m *Manager) scratch(id, what string) (string, error) {
	path := m.Dirs.VM(id).Scratch(what + "-" + banger.ShortID(banger.NewID()))
	return path, fileError(os.Mkdir(path, 0o700))
}

// reserveForks writes the children's rows, which say that they are being made
// until all of them are. It gives those it made also when it fails.
func (m *Manager) reserveForks(ctx context.Context, parent banger.VM, f Fork, p Progress) (children []*child, err error) {
	cfg, err := m.config(p)
	if err != nil {
		return nil, err
	}
	names, err := m.forkNames(ctx, or(f.Prefix, parent.Name), f.Count)
	if err != nil {
		return nil, err
	}
	image, err := m.Images.Image(ctx, parent.ImageID)
	if err != nil {
		return nil, err
	}
	rows := make([]banger.VM, len(names))
	for i, name := range names {
		rows[i] = forkOf(parent, name, f.Ephemeral)
		work, unlock, err := m.locks.lockWork(ctx, rows[i].ID)
		if err != nil {
			return children, err
		}
		children = append(children, &child{row: rows[i], work: work, unlock: sync.OnceFunc(unlock)})
	}
	if rows, err = m.Store.ReserveVMs(ctx, rows, cfg.NetworkPrefix); err != nil {
		return children, err
	}
	for i, c := range children {
		c.row = rows[i]
		if c.begin, err = m.describe(ctx, c.row, image, cfg); err != nil {
			return children, err
		}
	}
	for _, c := range children {
		context.AfterFunc(c.work, func() { m.giveUp(ctx, c) })
	}
	return children, nil
}

// forkOf is the row of a copy of parent.
func forkOf(parent banger.VM, name string, ephemeral bool) banger.VM {
	spec := parent.Spec
	spec.Parent, spec.Snapshot, spec.Ephemeral = parent.ID, "", ephemeral
	spec.Publish = nil // a port of the host can be only one VM's
	return banger.VM{
		ID: banger.NewID(), Name: name, ImageID: parent.ImageID, State: banger.StateCreated, Spec: spec,
		Runtime: banger.Runtime{Creating: true}, Workspace: parent.Workspace,
	}
}

// forkNames finds the first run of names that are all free.
func (m *Manager) forkNames(ctx context.Context, prefix string, count int) ([]string, error) {
	rows, err := m.Store.VMs(ctx)
	if err != nil {
		return nil, err
	}
	taken := map[string]bool{}
	for _, row := range rows {
		taken[row.Name] = true
	}
	var names []string
	for n := 1; len(names) < count; n++ {
		name := fmt.Sprintf("%s-%d", prefix, n)
		if err := banger.ValidateVMName(name); err != nil {
			return nil, err
		}
		if names = append(names, name); taken[name] {
			names = names[:0]
		}
	}
	return names, nil
}

// makeForks makes the children's directories. Most of that is waiting for the
// host's disk, which takes no longer for many at once.
func (m *Manager) makeForks(ctx context.Context, children []*child, o *origin, watch *stopwatch, p Progress) error {
	p.Stage("copy disk")
	err := together(ctx, children, func(ctx context.Context, c *child) error { return m.makeForkDir(ctx, c.row, o) })
	if err != nil {
		return err
	}
	watch.mark("disk")
	for _, c := range children {
		if o.saved != nil {
			c.begin.asItRan(o.saved.driver, o.saved.machine)
			c.begin.launch.Restore = o.saved.restore()
		}
		c.begin.launch.Trace = watch.phases
	}
	return nil
}

// makeForkDir is makeDir with a copy of a disk.
func (m *Manager) makeForkDir(ctx context.Context, row banger.VM, o *origin) error {
	dir := m.newDir(row.ID)
	if err := os.Mkdir(string(dir), 0o700); err != nil {
		return fileError(err)
	}
	if err := hold(dir, row); err != nil {
		return err
	}
	if err := o.giveDisk(ctx, string(dir)); err != nil {
		return err
	}
	if err := giveSeed(m.Dirs.VM(row.Spec.Parent), dir); err != nil {
		return err
	}
	if !row.Spec.Ephemeral {
		if err := syncOwn(string(dir)); err != nil {
			return fileError(err)
		}
	}
	return fileError(artifact.Rename(string(dir), string(m.Dirs.VM(row.ID))))
}

// syncOwn syncs the files that only dir has. What a guest has synced is on the
// host's disk already, in the files that its copies share.
func syncOwn(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		if e.Type().IsRegular() && st.Nlink == 1 {
			if err := syncFile(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// startForks starts the children, a few at a time, and acknowledges them once
// all of them are up.
func (m *Manager) startForks(ctx context.Context, children []*child, p Progress) error {
	p.Stage("start forks")
	turns := make(chan struct{}, runtime.NumCPU()+1)
	err := together(ctx, children, func(ctx context.Context, c *child) error {
		select {
		case turns <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		defer func() { <-turns }()
		return m.startFork(ctx, c)
	})
	if err != nil {
		return err
	}
	return m.acknowledge(ctx, children)
}

func (m *Manager) startFork(ctx context.Context, c *child) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l := newLive(c.row.ID)
	m.put(l)
	err := m.launch(ctx, l, c.begin.launch, silent{})
	if err == nil {
		err = m.awaitReady(ctx, c.row, l, silent{})
	}
	return banger.Wrap(err, "cannot start %s", c.row.Name)
}

// silent is the Progress of what happens several times at once.
type silent struct{}

func (silent) Stage(string) {}
func (silent) Warn(string)  {}
