package firecracker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/vmm"
)

// undoLimit bounds letting a machine run again whose Save failed.
const undoLimit = 10 * time.Second

// Kinds of a snapshot: of all memory, and of what is not as it was. Without dirty page
// tracking, which costs the guest, the latter is what is in the host's memory at all.
const (
	full = "Full"
	diff = "Diff"
)

// Save implements vmm.Machine. Firecracker writes memory and state into files in RAM that it
// has had since it began.
func (m *machine) Save(ctx context.Context, to vmm.Saved, frozen func() error) error {
	m.saving.Lock()
	defer m.saving.Unlock()
	return vmm.SaveInto(m.cfg, to, func(files vmm.SavedFiles) error { return m.save(ctx, files, to.Pausing, frozen) })
}

func (m *machine) save(ctx context.Context, to vmm.SavedFiles, pausing func(), frozen func() error) (err error) {
	ran, err := m.running(ctx)
	if err != nil {
		return err
	}
	if err := m.prepareSave(ctx, to.Memory); err != nil {
		return err
	}
	release := m.hold()
	defer release()
	defer func() {
		if err != nil && ran {
			fresh, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
			defer cancel()
			err = errors.Join(err, m.Resume(fresh))
		}
	}()
	if pausing != nil {
		pausing()
	}
	if err := m.standStill(ctx); err != nil {
		return err
	}
	defer m.wires.memory.Truncate(0) // which gives the host its memory back
	// Who gives up a call does not stop Firecracker, which would be resumed in the middle.
	state, err := m.snapshot(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return banger.Errorf(banger.Cancelled, "%w", context.Cause(ctx))
	}
	if err := stateOf(m.version, m.cfg).Write(to.State, state); err != nil {
		return err
	}
	if err := m.copyFrozen(ctx, to.Memory, frozen); err != nil {
		return err
	}
	return to.Close()
}

// prepareSave does what can be done while the guest runs: of a machine that was restored most
// memory is as it was then. And the disks are written out, which frozen may wait for.
func (m *machine) prepareSave(ctx context.Context, memory *os.File) error {
	var work errgroup.Group
	for _, d := range m.cfg.Disks {
		if !d.ReadOnly {
			work.Go(func() error { return vmm.WriteOut(m.cfg.At(d.Path)) })
		}
	}
	err := memory.Truncate(m.cfg.MemoryMiB << 20)
	if err == nil && m.wires.base != nil {
		err = vmm.CopySparse(memory, m.wires.base)
	}
	if err := errors.Join(err, work.Wait()); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return banger.Errorf(banger.Cancelled, "%w", context.Cause(ctx))
	}
	return nil
}

// hold lets nothing in from outside: Firecracker's devices go on while the vCPUs are halted, and would
// write what comes into memory that is being saved.
func (m *machine) hold() (release func()) {
	m.link.Hold()
	if m.cable == nil {
		return m.link.Release
	}
	free := m.cable.hold()
	return func() {
		free()
		m.link.Release()
	}
}

// standStill halts the vCPUs, and returns when the devices have done what they had asked for before:
// Firecracker does one thing after the other, in the order in which they came.
func (m *machine) standStill(ctx context.Context) error {
	if err := m.Pause(ctx); err != nil {
		return err
	}
	for range 2 {
		if _, err := m.running(ctx); err != nil {
			return err
		}
	}
	return nil
}

// snapshot has Firecracker write its memory, and gives its state. A page that is swapped out is not in
// memory, and would be missing: then all of it is written, which finds them.
func (m *machine) snapshot(ctx context.Context) ([]byte, error) {
	kind := diff
	if m.swapped() {
		kind = full
	}
	if err := m.dump(ctx, kind); err != nil {
		return nil, err
	}
	if kind == diff && m.swapped() {
		if err := m.dump(ctx, full); err != nil {
			return nil, err
		}
	}
	info, err := m.wires.state.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > vmm.MaxState {
		return nil, fmt.Errorf("the state of the devices has %s", banger.FormatSize(info.Size()))
	}
	return io.ReadAll(io.NewSectionReader(m.wires.state, 0, info.Size()))
}

func (m *machine) dump(ctx context.Context, kind string) error {
	if err := m.wires.memory.Truncate(0); err != nil {
		return err
	}
	err := m.call(ctx, request{"PUT", "/snapshot/create", snapshotCreate{
		Type: kind, State: inherited(fdSaveState), Memory: inherited(fdSaveMemory),
	}}, nil)
	m.turning.Lock()
	defer m.turning.Unlock()
	m.announced = m.announced || err == nil
	return err
}

// swapped says whether any of Firecracker's own memory is swapped out. In doubt it is.
func (m *machine) swapped() bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.PID()))
	if err != nil {
		return true
	}
	_, rest, found := strings.Cut(string(status), "\nVmSwap:")
	var kB int
	_, err = fmt.Sscan(rest, &kB)
	return !found || err != nil || kB > 0
}

// copyFrozen copies what stands still: memory and disks, at once.
func (m *machine) copyFrozen(ctx context.Context, memory *os.File, frozen func() error) error {
	var work errgroup.Group
	work.Go(func() error { return lay(ctx, memory, m.wires.memory) })
	var err error
	if frozen != nil {
		err = frozen()
	}
	return errors.Join(err, work.Wait())
}

// lay copies what upper has over what is in lower; what is zero there is a hole below.
func lay(ctx context.Context, lower, upper *os.File) error {
	buf := make([]byte, 1<<20)
	for at := int64(0); ; {
		begin, err := unix.Seek(int(upper.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // only a hole is left
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(int(upper.Fd()), begin, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		for at = begin; at < end; {
			if ctx.Err() != nil {
				return banger.Errorf(banger.Cancelled, "%w", context.Cause(ctx))
			}
			n, err := upper.ReadAt(buf[:min(int64(len(buf)), end-at)], at)
			if n == 0 {
				return err
			}
			if err := layAt(lower, buf[:n], at); err != nil {
				return err
			}
			at += int64(n)
		}
	}
}

func layAt(lower *os.File, pages []byte, at int64) error {
	for run, zero := range vmm.Runs(pages) {
		var err error = unix.EOPNOTSUPP
		if zero {
			err = punch(lower, at, int64(len(run)))
		}
		if errors.Is(err, unix.EOPNOTSUPP) {
			if _, err := lower.WriteAt(run, at); err != nil {
				return err
			}
		} else if err != nil {
			return err
		}
		at += int64(len(run))
	}
	return nil
}

func punch(f *os.File, at, length int64) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, length)
}

func stateOf(version string, cfg vmm.Config) vmm.State {
	s := vmm.StateOf(Driver{}.Name(), version, cfg)
	s.Build = machineBuild
	return s
}
