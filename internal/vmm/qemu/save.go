package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"banger"
	"banger/internal/vmm"
)

// undoLimit bounds letting a machine run again whose Save failed.
const undoLimit = 10 * time.Second

// workers copy memory: one reads and compares while the other writes. More would
// take the guest's cores on a small host.
const workers = 2

// Save implements vmm.Machine. QEMU's own way, migration, writes the whole
// memory into a stream, from which no two machines could share a page; so it
// saves the devices only, and we take the memory.
func (m *machine) Save(ctx context.Context, to vmm.Saved, frozen func() error) error {
	m.saving.Lock()
	defer m.saving.Unlock()
	return vmm.SaveInto(m.cfg, to, func(files vmm.SavedFiles) error { return m.save(ctx, files, to.Pausing, frozen) })
}

func (m *machine) save(ctx context.Context, to vmm.SavedFiles, pausing func(), frozen func() error) (err error) {
	memory, err := m.findRAM(ctx)
	if err != nil {
		return err
	}
	copied, err := m.prepareSave(ctx, memory, to.Memory)
	if err != nil {
		return err
	}
	var status struct{ Running bool }
	if err := m.query(ctx, "query-status", nil, &status); err != nil {
		return err
	}
	defer func() {
		if err != nil && status.Running {
			fresh, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
			defer cancel()
			err = errors.Join(err, m.Resume(fresh))
		}
	}()
	if pausing != nil {
		pausing()
	}
	m.agent.gate.Lock()
	defer m.agent.gate.Unlock()
	if err := m.halt(ctx); err != nil {
		return err
	}
	if err := m.copyFrozen(ctx, copied, to, frozen); err != nil {
		return err
	}
	return to.Close()
}

// halt pauses the machine, after which QEMU reads no agent's and no disk's data into its
// memory. What the guest has written to the agent goes out as far as the socket has
// room: QEMU finds that out in one turn of its main loop and writes in the next, and no
// command is answered in the turn in which the one before it was.
func (m *machine) halt(ctx context.Context) error {
	err := m.Pause(ctx)
	for turn := 0; err == nil && turn < 3; turn++ {
		err = m.command(ctx, "query-status", nil)
	}
	return err
}

// prepareSave does what can be done while the guest runs. It has the disks
// written out, since stop does that too and would take as long as there is to
// write. And it copies the memory: what the guest changes after that is little
// beside what it does not. The first turn can take long, and the guest writes
// on meanwhile, so what must be fresh comes in the second.
func (m *machine) prepareSave(ctx context.Context, memory ram, to *os.File) (*memoryCopy, error) {
	copied, err := memory.copyTo(to)
	if err != nil {
		return nil, err
	}
	err = m.whileWritingOut(func() error { return copied.takeBase(m.base) })
	if err == nil {
		err = m.whileWritingOut(func() error { return copied.pass(ctx, workers) })
	}
	return copied, err
}

// whileWritingOut does something while the dirty pages of the disks are written.
func (m *machine) whileWritingOut(do func() error) error {
	var work errgroup.Group
	work.Go(do)
	for _, path := range m.written() {
		work.Go(func() error { return vmm.WriteOut(path) })
	}
	return work.Wait()
}

// copyFrozen copies what stands still: what is new in memory, devices and
// disks, at once.
func (m *machine) copyFrozen(ctx context.Context, memory *memoryCopy, to vmm.SavedFiles, frozen func() error) error {
	var work errgroup.Group
	work.Go(func() error { return memory.pass(ctx, workers) })
	devices, err := m.deviceState(ctx)
	if err == nil {
		err = stateOf(m.monitor.version, m.cfg).Write(to.State, devices)
	}
	if err == nil && frozen != nil {
		err = frozen()
	}
	return errors.Join(err, work.Wait())
}

func stateOf(version string, cfg vmm.Config) vmm.State {
	s := vmm.StateOf(Driver{}.Name(), version, cfg)
	s.Build = machineBuild
	return s
}

// deviceState asks QEMU for the state of everything but memory. The command is
// Xen's, which keeps memory elsewhere too, and needs no Xen.
func (m *machine) deviceState(ctx context.Context) ([]byte, error) {
	if err := m.devices.rewind(); err != nil {
		return nil, err
	}
	err := m.command(ctx, "xen-save-devices-state", object{"filename": fmt.Sprintf("/dev/fdset/%d", fdDevices), "live": false})
	if err != nil {
		return nil, err
	}
	info, err := m.devices.read.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > vmm.MaxState {
		return nil, fmt.Errorf("the state of the devices has %s", banger.FormatSize(info.Size()))
	}
	return io.ReadAll(io.NewSectionReader(m.devices.read, 0, info.Size()))
}
