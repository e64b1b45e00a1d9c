package vm

import (
	"context"
	"net"
	"net/netip"
	"slices"

	"banger"
	"banger/internal/config"
	"banger/internal/shim"
	"banger/internal/vnet/reach"
)

// checkNetwork refuses rules that say nothing, before anything is made.
func checkNetwork(s banger.Spec) error {
	_, err := reach.ParsePolicy(s.NAT, s.Allow)
	return err
}

func reachOf(s banger.Spec) shim.Reach {
	return shim.Reach{NAT: s.NAT, Allow: append([]string{}, s.Allow...)}
}

// Network implements Service.
func (m *Manager) Network(ctx context.Context, id string) (shim.NetworkReport, error) {
	row, l, _, err := m.alive(ctx, id)
	if banger.CodeOf(err) == banger.NotRunning && !foreign(row) {
		return m.keptNetwork(row)
	}
	var s Shim
	if err == nil {
		s, err = m.answering(ctx, l)
	}
	if err != nil {
		return shim.NetworkReport{}, banger.Wrap(err, "cannot look at the network of %s", row.Name)
	}
	return s.Network(ctx)
}

// keptNetwork is the report of a VM at rest.
func (m *Manager) keptNetwork(row banger.VM) (shim.NetworkReport, error) {
	all, err := shim.KeptNetwork(m.Dirs.VM(row.ID))
	if err != nil {
		return shim.NetworkReport{}, banger.Wrap(err, "cannot read what %s reached before", row.Name)
	}
	return shim.NetworkReport{Reach: reachOf(row.Spec), Records: all, Learned: reach.Learn(all)}, nil
}

// agreeOnNetwork has the shim of a VM do what the row says: the row is written
// first, and a daemon may have died in between. A shim without a network has
// nothing to agree on.
func (m *Manager) agreeOnNetwork(ctx context.Context, l *live, row banger.VM) error {
	status, _, _ := l.seen()
	if status == nil || status.Reach == nil {
		return nil
	}
	want, has := reachOf(row.Spec), *status.Reach
	if want.NAT == has.NAT && slices.Equal(want.Allow, has.Allow) {
		return nil
	}
	s, err := l.shim()
	if err == nil {
		_, err = s.Allow(ctx, want)
	}
	return err
}

// networkOf describes the network of a VM for its shim. Its gateway is the first
// address of the range, which no VM has.
func networkOf(row banger.VM, cfg config.Config) (*shim.Network, error) {
	prefix, err := cfg.Network()
	if err != nil {
		return nil, err
	}
	guest, err := netip.ParseAddr(row.GuestIP)
	if err != nil || !guest.Is4() {
		return nil, banger.Errorf(banger.Internal, "its address %q is none", row.GuestIP)
	}
	gateway := prefix.Addr().Next()
	if gateway == guest { // a VM of another range than today's
		gateway = prefix.Addr()
	}
	n := &shim.Network{
		Guest: guest, Gateway: gateway, Reach: reachOf(row.Spec), VMs: []netip.Prefix{prefix},
	}
	if cfg.DefaultDNS != "" {
		n.Resolvers = []string{net.JoinHostPort(cfg.DefaultDNS, "53")}
	}
	return n, nil
}

// trust is what guests are to trust besides what their images do, and what was left
// out of it.
func (m *Manager) trust(cfg config.Config) (text []byte, problems []string) {
	if !cfg.InheritCA {
		return nil, nil
	}
	return m.Trust()
}
