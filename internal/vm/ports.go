package vm

import (
	"context"
	"net/netip"

	"banger"
	"banger/internal/config"
	"banger/internal/loopback"
	"banger/internal/ports"
	"banger/internal/shim"
)

// Loopback is which of the host's loopback addresses VMs get.
type Loopback interface {
	// Prefix is the one of this daemon, that which is preferred where nobody
	// else has it.
	Prefix(ctx context.Context, preferred string) (loopback.Prefix, loopback.Owner, error)
}

// checkPublish refuses a port of the host that cannot be had, before anything is
// made.
func checkPublish(s banger.Spec) error {
	all, err := banger.ParsePublishes(s.Publish)
	for _, p := range all {
		if err == nil {
			err = ports.CheckPublish(p)
		}
	}
	return err
}

// portsOf describes where a VM's ports are. Where no address is left for it, it
// runs without.
func (m *Manager) portsOf(ctx context.Context, row banger.VM, network *shim.Network, cfg config.Config) *shim.Ports {
	p := &shim.Ports{Publish: row.Spec.Publish}
	prefix, owner, err := m.Loopback.Prefix(ctx, cfg.LoopbackPrefix)
	if err == nil {
		p.Address, err = addressOf(prefix, network.Guest, cfg)
	}
	if err != nil {
		m.Log.Warn("a VM has no address on the host", "vm", row.ID, "err", err)
		return p
	}
	p.Prefix, p.Owner = prefix.String(), owner
	return p
}

func addressOf(prefix loopback.Prefix, guest netip.Addr, cfg config.Config) (netip.Addr, error) {
	network, err := cfg.Network()
	if err != nil {
		return netip.Addr{}, err
	}
	return prefix.Of(network, guest), nil
}

// Ports implements Service.
func (m *Manager) Ports(ctx context.Context, id string) ([]banger.Port, error) {
	row, l, _, err := m.alive(ctx, id)
	var s Shim
	if err == nil {
		s, err = m.answering(ctx, l)
	}
	var all []banger.Port
	if err == nil {
		all, err = s.Ports(ctx)
	}
	return all, banger.Wrap(err, "cannot list the ports of %s", row.Name)
}
