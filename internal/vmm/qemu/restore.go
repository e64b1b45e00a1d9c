package qemu

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/vmm"
)

// Restore implements vmm.Driver.
func (d Driver) Restore(ctx context.Context, cfg vmm.Config, from vmm.Source, out vmm.IO) (vmm.Machine, error) {
	m, err := restore(ctx, cfg, from, out)
	if err != nil {
		return nil, banger.Wrap(err, "cannot restore the machine")
	}
	return m, nil
}

func restore(ctx context.Context, cfg vmm.Config, from vmm.Source, out vmm.IO) (*machine, error) {
	if err := cfg.CheckRestore(); err != nil {
		return nil, err
	}
	state, err := vmm.ReadFitting(Driver{}.Name(), machineBuild, cfg, from)
	if err != nil {
		return nil, err
	}
	w, err := openRestoreWires(cfg, from.Memory)
	if err != nil {
		return nil, err
	}
	m, err := launch(cfg, restoreArguments(cfg), Driver{}, w, out)
	if err != nil {
		return nil, err
	}
	if err := m.load(ctx, w.state, state.Devices); err != nil {
		return nil, m.refusal(m.abandon(ctx, err))
	}
	return m, nil
}

// refusal is why a machine did not come back: where QEMU was up, and ended
// without having been made to, the state is not one it can take.
func (m *machine) refusal(err error) error {
	if m.monitor.version != "" && m.exit.Reason == vmm.Crashed && m.exit.Signal == "" {
		return banger.Errorf(banger.BadRequest, "QEMU %s cannot take the saved state: %w", m.monitor.version, err)
	}
	return err
}

// load gives QEMU the state of its devices and lets the vCPUs run. A state
// that QEMU cannot take ends it.
//
// All of it is to be there when QEMU begins: where QEMU has to wait in the middle, it goes
// on with whatever a device has to do that is only half restored. The agent's, if the
// guest had written more than was read, breaks itself so.
func (m *machine) load(ctx context.Context, to *os.File, devices []byte) error {
	feed := func() {
		_, _ = to.Write(devices) // fails if QEMU has ended, which takeIn says better
		_ = to.Close()
	}
	if _, err := unix.FcntlInt(to.Fd(), unix.F_SETPIPE_SZ, len(devices)); err == nil {
		feed()
	} else { // the host allows no pipe as large as this
		go feed()
	}
	return m.takeIn(ctx)
}

// takeIn has QEMU read its state, and returns when the vCPUs run. While the
// state comes in, cont only says what is to happen after it.
func (m *machine) takeIn(ctx context.Context) error {
	if err := m.greet(ctx); err != nil {
		return err
	}
	if err := m.monitor.execute(ctx, "migrate-incoming", object{"uri": fmt.Sprintf("fd:%d", fdState)}, nil); err != nil {
		return err
	}
	if err := m.monitor.execute(ctx, "cont", nil, nil); err != nil {
		return err
	}
	select {
	case <-m.resumed:
		return nil
	case <-m.monitor.closed:
		return m.monitor.why
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
