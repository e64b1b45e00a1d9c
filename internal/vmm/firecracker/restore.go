package firecracker

import (
	"context"
	"errors"

	"banger"
	"banger/internal/vmm"
)

// Restore implements vmm.Driver.
func (Driver) Restore(ctx context.Context, cfg vmm.Config, from vmm.Source, out vmm.IO) (vmm.Machine, error) {
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
	if err := check(cfg); err != nil {
		return nil, err
	}
	state, err := vmm.ReadFitting(Driver{}.Name(), machineBuild, cfg, from)
	if err != nil {
		return nil, err
	}
	m, err := launch(ctx, cfg, saved{from.Memory, state.Devices}, out)
	if err != nil {
		return nil, err
	}
	if err := m.load(ctx); err != nil {
		return nil, m.refusal(state.Version, m.abandon(ctx, err))
	}
	close(m.up)
	return m, nil
}

// load gives Firecracker what was saved, which it maps privately, and lets the vCPUs run.
// What it was saved with is named as it is in every machine, but for the socket.
func (m *machine) load(ctx context.Context) error {
	l := snapshotLoad{
		State:  inherited(fdState),
		Memory: memoryBackend{"File", inherited(fdMemory)},
		Resume: true,
		Vsock:  vsockOverride{m.home.inside(vsockName)},
	}
	if m.cfg.NIC != nil {
		l.Networks = []networkOverride{{cardID, cardName}}
	}
	return m.api.do(ctx, request{"PUT", "/snapshot/load", l})
}

// refusal is why a machine did not come back: where Firecracker said so, the state is not one
// it can take.
func (m *machine) refusal(saved string, err error) error {
	var said *fault
	if errors.As(err, &said) {
		return banger.Errorf(banger.BadRequest, "Firecracker %s cannot take the state that %s saved: %w", m.version, saved, err)
	}
	return err
}
