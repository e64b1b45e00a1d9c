package qemu

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"banger"
)

// freezeLimit bounds what FreezeDisk does that may not be left half done. QEMU
// flushes the file that took the writes, which is quick where a Save had it
// written out before.
const freezeLimit = 30 * time.Second

// top is the file of a disk that takes its writes, if any does.
type top struct {
	path     string
	level    int // as in node
	set      int // of QEMU's descriptors of it
	readOnly bool
}

// top looks a disk up. The caller holds m.disks.
func (m *machine) top(serial string) (top, error) {
	disk, found := m.tops[serial]
	if !found {
		return top{}, banger.Errorf(banger.NotFound, "the machine has no disk %q", serial)
	}
	return disk, nil
}

// written are the files that take writes.
func (m *machine) written() (paths []string) {
	m.disks.Lock()
	defer m.disks.Unlock()
	for _, disk := range m.tops {
		if !disk.readOnly {
			paths = append(paths, m.cfg.At(disk.path))
		}
	}
	return paths
}

// FreezeDisk implements vmm.Machine.
func (m *machine) FreezeDisk(ctx context.Context, serial, overlay string) error {
	return banger.Wrap(m.freezeDisk(ctx, serial, overlay), "cannot freeze the disk %s", serial)
}

func (m *machine) freezeDisk(ctx context.Context, serial, overlay string) error {
	m.disks.Lock()
	defer m.disks.Unlock()
	old, err := m.top(serial)
	if err != nil {
		return err
	}
	if old.readOnly {
		return banger.Errorf(banger.BadRequest, "nobody writes to it")
	}
	if ctx.Err() != nil {
		return banger.Errorf(banger.Cancelled, "%w", context.Cause(ctx))
	}
	// From here on a command that is given up would leave it open which file
	// takes the writes.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), freezeLimit)
	defer cancel()
	next := top{path: overlay, level: old.level + 1}
	if next.set, err = m.passLayer(ctx, m.cfg.At(overlay)); err != nil {
		m.dropSet(ctx, next.set)
		return m.mute(err)
	}
	if err := m.putOnTop(ctx, serial, old, next); err != nil {
		m.command(ctx, "blockdev-del", object{"node-name": node(serial, next.level)})
		m.dropSet(ctx, next.set)
		return m.mute(err)
	}
	m.tops[serial] = next
	m.frozen = append(m.frozen, old.set)
	if err := m.closeFrozen(ctx); err != nil {
		// It writes to the overlay by now, which after any other error is
		// taken away; and it could write to what others share.
		return m.giveUp("would not let go of the frozen file", err)
	}
	return nil
}

// mute ends a machine that does not answer any more, or is not listened to: nobody can
// tell which file it writes to.
func (m *machine) mute(err error) error {
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, errTooLong) {
		return err
	}
	return m.giveUp("did not answer", err)
}

func (m *machine) giveUp(why string, err error) error {
	m.process.Signal(os.Kill)
	<-m.done
	return banger.Errorf(banger.NotRunning, "QEMU %s and was ended: %w", why, err)
}

// noSet is no set of descriptors: 0 is one.
const noSet = -1

// dropSet takes back the descriptors of a layer that is not used after all.
func (m *machine) dropSet(ctx context.Context, set int) {
	if set != noSet {
		m.command(ctx, "remove-fd", object{"fdset-id": set})
	}
}

// putOnTop has QEMU write to next from now on, and reopen old for reading.
func (m *machine) putOnTop(ctx context.Context, serial string, old, next top) error {
	lower, upper := node(serial, old.level), node(serial, next.level)
	block := blockNode(serial, next.level, next.set, false, "off")
	if err := m.command(ctx, "blockdev-add", block); err != nil {
		return banger.Errorf(banger.BadRequest, "%s is no layer for it: %w", next.path, err)
	}
	sizes, err := m.diskSizes(ctx)
	if err != nil {
		return err
	}
	if sizes[upper] < sizes[lower] {
		return banger.Errorf(banger.BadRequest, "%s is for a disk of %d bytes, not of %d", next.path, sizes[upper], sizes[lower])
	}
	return m.command(ctx, "blockdev-snapshot", object{"node": lower, "overlay": upper})
}

// passLayer gives QEMU a layer's descriptors, as it has them of the disks it
// began with, and tells their set, also where only one of them got there.
func (m *machine) passLayer(ctx context.Context, path string) (set int, err error) {
	added := struct {
		Set int `json:"fdset-id"`
	}{noSet}
	args := object{}
	for _, way := range []struct {
		flags int
		name  string
	}{{os.O_RDONLY, "reader"}, {os.O_RDWR, writer}} {
		f, err := os.OpenFile(path, way.flags, 0)
		if errors.Is(err, fs.ErrNotExist) {
			return added.Set, banger.Errorf(banger.NotFound, "the layer is missing: %w", err)
		}
		if err != nil {
			return added.Set, err
		}
		args["opaque"] = way.name
		err = m.explain("add-fd", m.monitor.executeWith(ctx, "add-fd", args, &added, f))
		f.Close()
		if err != nil {
			return added.Set, err
		}
		args["fdset-id"] = added.Set
	}
	return added.Set, nil
}

// closeFrozen takes from QEMU the descriptors with which it could write files
// that were frozen. It closes none before the machine runs: then it must be
// asked again. The caller holds m.disks.
func (m *machine) closeFrozen(ctx context.Context) error {
	if len(m.frozen) == 0 {
		return nil
	}
	writers, err := m.writers(ctx)
	if err != nil {
		return err
	}
	for _, set := range m.frozen {
		if fd, open := writers[set]; open {
			if err := m.command(ctx, "remove-fd", object{"fdset-id": set, "fd": fd}); err != nil {
				return err
			}
		}
	}
	if writers, err = m.writers(ctx); err != nil {
		return err
	}
	m.frozen = slices.DeleteFunc(m.frozen, func(set int) bool {
		_, open := writers[set]
		return !open
	})
	return nil
}

// writers are the descriptors that can write, by their sets.
func (m *machine) writers(ctx context.Context) (map[int]int, error) {
	var sets []struct {
		ID  int `json:"fdset-id"`
		FDs []struct {
			FD     int    `json:"fd"`
			Opaque string `json:"opaque"`
		} `json:"fds"`
	}
	if err := m.query(ctx, "query-fdsets", nil, &sets); err != nil {
		return nil, err
	}
	writers := map[int]int{}
	for _, s := range sets {
		for _, fd := range s.FDs {
			if fd.Opaque == writer {
				writers[s.ID] = fd.FD
			}
		}
	}
	return writers, nil
}
