package vm

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/ext4"
	"banger/internal/layers"
)

// Set implements Service. The row is written first, and then whoever runs the VM
// told: a daemon that dies in between finds out at its next start. The disk grows
// before, so that no row promises one that is not there.
func (m *Manager) Set(ctx context.Context, id string, s Set, p Progress) (v View, changes []string, err error) {
	v, err = m.change(ctx, id, "change", func(ctx context.Context, row banger.VM) error {
		after, err := s.apply(row.Spec, p)
		if err != nil {
			return err
		}
		changes = changed(row.Spec, after)
		if len(changes) == 0 {
			return nil
		}
		if err := m.mayChange(ctx, row, after); err != nil || s.DryRun {
			return err
		}
		return m.set(ctx, row, after)
	})
	return v, changes, err
}

// apply is the spec as it is to be.
func (s Set) apply(spec banger.Spec, p Progress) (banger.Spec, error) {
	spec.VCPU, spec.MemoryMiB, spec.DiskBytes = or(s.VCPU, spec.VCPU), or(s.MemoryMiB, spec.MemoryMiB), or(s.DiskBytes, spec.DiskBytes)
	if s.NAT != nil {
		spec.NAT = *s.NAT
	}
	if s.NoAllow {
		spec.Allow = nil
	}
	spec.Allow = slices.Clone(spec.Allow)
	for _, rule := range s.Allow {
		if !slices.Contains(spec.Allow, rule) {
			spec.Allow = append(spec.Allow, rule)
		}
	}
	if err := checkSpec(spec); err != nil {
		return spec, err
	}
	warnOfSpec(spec, p)
	return spec, nil
}

// changed says in words what differs.
func changed(was, is banger.Spec) (changes []string) {
	for _, c := range []struct{ what, was, is string }{
		{"vcpu", fmt.Sprint(was.VCPU), fmt.Sprint(is.VCPU)},
		{"memory", fmt.Sprintf("%d MiB", was.MemoryMiB), fmt.Sprintf("%d MiB", is.MemoryMiB)},
		{"disk", banger.FormatSize(was.DiskBytes), banger.FormatSize(is.DiskBytes)},
		{"network", was.NetworkWords(), is.NetworkWords()},
	} {
		if c.was != c.is {
			changes = append(changes, fmt.Sprintf("%s: %s -> %s", c.what, c.was, c.is))
		}
	}
	return changes
}

// mayChange refuses what the VM cannot become as it is now.
func (m *Manager) mayChange(ctx context.Context, row banger.VM, after banger.Spec) error {
	if after.DiskBytes < row.Spec.DiskBytes {
		return banger.Errorf(banger.BadRequest, "a disk of %s cannot become one of %s: disks only grow",
			banger.FormatSize(row.Spec.DiskBytes), banger.FormatSize(after.DiskBytes))
	}
	shape := after.VCPU != row.Spec.VCPU || after.MemoryMiB != row.Spec.MemoryMiB
	if !shape && after.DiskBytes == row.Spec.DiskBytes {
		return nil
	}
	l, err := m.attach(ctx, row)
	if err != nil {
		return err
	}
	was, err := m.suspended(row.ID)
	switch {
	case err != nil:
		return err
	case l == nil && was != nil:
		return banger.Errorf(banger.Conflict, "it is suspended, as the machine it was").Hint("banger vm stop %s", row.Name)
	case l != nil && shape:
		return hintStop(banger.Errorf(banger.Conflict, "processors and memory can be changed when it is stopped"), row)
	}
	return nil
}

func (m *Manager) set(ctx context.Context, row banger.VM, after banger.Spec) error {
	if after.DiskBytes > row.Spec.DiskBytes {
		if err := m.growDisk(ctx, row, after.DiskBytes); err != nil {
			return err
		}
	}
	was := row.Spec
	row, err := m.amend(ctx, row.ID, func(s *banger.Spec) { *s = after })
	if err != nil {
		return err
	}
	l, err := m.attach(ctx, row)
	if err != nil || l == nil {
		return err
	}
	s, err := m.answering(ctx, l)
	if err != nil {
		return err
	}
	if err := m.refresh(ctx, l, s); err != nil {
		return err
	}
	if status, _, _ := l.seen(); status.Reach == nil && was.NetworkWords() != after.NetworkWords() {
		return refuseNetwork(row)
	}
	if err := m.agreeOnNetwork(ctx, l, row); err != nil {
		return err
	}
	return m.refresh(ctx, l, s)
}

// refuseNetwork is for a VM whose shim has no network to change. One that goes with its
// owner is never started again.
func refuseNetwork(row banger.VM) error {
	if row.Spec.Ephemeral {
		return banger.Errorf(banger.Unavailable, "its network cannot change: the banger that started it knew of none").Hint(withoutRm)
	}
	return banger.Errorf(banger.Unavailable, "its network changes when it is started again: the banger that started it knew of none").
		Hint("banger vm restart %s", row.Name)
}

// growDisk enlarges the disk of a VM. The guest of one that runs uses it at once,
// others when they start.
func (m *Manager) growDisk(ctx context.Context, row banger.VM, size int64) error {
	dir := m.Dirs.VM(row.ID)
	l, err := m.attach(ctx, row)
	if err != nil {
		return err
	}
	_, above, err := layers.Of(string(dir))
	if err != nil {
		return fileError(err)
	}
	if l == nil && len(above) > 0 {
		if err := layers.Flatten(ctx, string(dir)); err != nil {
			return fileError(err)
		}
		above = nil
	}
	if len(above) == 0 {
		if err := growFile(dir.Disk(), size); err != nil {
			return err
		}
	}
	if l == nil {
		return nil
	}
	s, err := m.answering(ctx, l)
	if err != nil {
		return err
	}
	return s.GrowDisk(ctx, "disk", size)
}

// growFile enlarges a disk that is one file and this VM's alone.
func growFile(path string, size int64) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fileError(err)
	}
	if st.Nlink > 1 {
		return banger.Errorf(banger.Internal, "its disk is another VM's too")
	}
	err := ext4.Grow(path, size)
	if err == nil {
		err = syncFile(path)
	}
	return fileError(err)
}
