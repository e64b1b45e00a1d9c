package shim

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"slices"
	"time"

	"banger"
	"banger/internal/guestwire"
	"banger/internal/vmm"
	"banger/internal/vnet/reach"
)

// Network is the network of a VM: where its guest is and what it may reach.
type Network struct {
	Guest   netip.Addr `json:"guest"`
	Gateway netip.Addr `json:"gateway"`

	Reach

	Resolvers []string       `json:"resolvers,omitempty"` // ADDRESS:PORT, asked one after the other; none: the host's
	VMs       []netip.Prefix `json:"vms,omitempty"`       // where guests have their addresses from: refused
}

// Reach is what a guest may reach.
type Reach struct {
	NAT   bool     `json:"nat"`   // the internet
	Allow []string `json:"allow"` // rules as vnet reads them
}

// NIC is the network card of every VM. All have the same, since each is alone on
// its cable.
func NIC() *vmm.NIC { return &vmm.NIC{MAC: reach.GuestMAC.String(), MTU: reach.MaxMTU} }

// site is the network as those see it who make it.
func (n Network) site() (reach.Site, error) {
	policy, err := reach.ParsePolicy(n.NAT, n.Allow)
	return reach.Site{Guest: n.Guest, Gateway: n.Gateway, Policy: policy, Resolvers: n.Resolvers, VMs: n.VMs}, err
}

// openNetwork makes the network, to which no guest is attached yet.
func (s *supervisor) openNetwork(open func(reach.Site) (Wire, error)) error {
	site, err := s.launch.Network.site()
	if err != nil {
		return err
	}
	wire, err := open(site)
	if err != nil {
		return err
	}
	s.network = wire
	s.recallNetwork()
	return nil
}

// plugIn serves the cable of a machine, where it has one, until its end.
func (s *supervisor) plugIn(b *boot) {
	cable := b.machine.Cable()
	if cable == nil || s.network == nil {
		return
	}
	framing := reach.Stream
	if cable.Packets {
		framing = reach.Packets
	}
	b.work.Go(func() {
		// The descriptor itself, so that a frame's parts go with one call.
		if err := s.network.Serve(context.Background(), cable.ReadWriteCloser, framing); err != nil {
			s.log.Warn("the guest's network ended", "error", err)
		}
	})
}

// place is where the guest is on its cable, nil where it has no network card.
func (s *supervisor) place() *guestwire.Network {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.launch.Machine.NIC == nil {
		return nil
	}
	return s.launch.Network.Place()
}

// Place is where a guest is on its cable.
func (n *Network) Place() *guestwire.Network {
	if n == nil {
		return nil
	}
	return &guestwire.Network{
		MAC: [6]byte(reach.GuestMAC), Address: n.Guest.As4(), Gateway: n.Gateway.As4(), GatewayMAC: [6]byte(reach.GatewayMAC),
	}
}

// reach is what the guest may reach, nil where it has no network. With mu held.
func (s *supervisor) reach() *Reach {
	if s.network == nil || s.launch.Machine.NIC == nil {
		return nil
	}
	r := s.launch.Network.Reach
	return &r
}

// online refuses what needs a network where there is none: the machine began
// without one.
func (s *supervisor) online() error {
	if s.network == nil || s.launch.Machine.NIC == nil {
		return banger.Errorf(banger.Unavailable, "%s was started without a network", s.launch.Name).
			Hint("banger vm restart %s", s.launch.Name)
	}
	return nil
}

type allowed struct {
	Ended int `json:"ended"` // connections
}

// answerAllow puts another policy in force. What was asked for last is what
// counts, also for those who ask at once.
func (s *supervisor) answerAllow(params json.RawMessage) (any, error) {
	var r Reach
	if err := parse(params, &r); err != nil {
		return nil, err
	}
	s.reaching.Lock()
	defer s.reaching.Unlock()
	proxies := s.proxies
	if !r.NAT {
		proxies = nil
	}
	policy, err := reach.ParsePolicy(r.NAT, slices.Concat(r.Allow, proxies))
	if err == nil {
		err = s.online()
	}
	if err != nil {
		return nil, banger.Wrap(err, "cannot change the network of %s", s.launch.Name)
	}
	s.proxies = proxies
	var a allowed
	s.update(func() {
		n := *s.launch.Network // others may be reading it
		n.Reach = r
		s.launch.Network = &n
		a.Ended = s.network.SetPolicy(policy)
	})
	s.log.Info("the network has changed", "policy", policy.String(), "ended", a.Ended)
	return a, nil
}

// NetworkReport is what a guest reached and what it was refused so far. Counters
// are since its shim was started.
type NetworkReport struct {
	Reach
	Records  []reach.Record `json:"records"` // the latest first
	Counters reach.Counters `json:"counters"`
	Learned  []string       `json:"learned"` // the rules that everything so far needed
}

func (s *supervisor) networkReport() (any, error) {
	if err := s.online(); err != nil {
		return nil, banger.Wrap(err, "cannot look at the network of %s", s.launch.Name)
	}
	s.mu.Lock()
	r := s.launch.Network.Reach
	s.mu.Unlock()
	return NetworkReport{r, s.network.Records(), s.network.Counters(), s.network.Learn()}, nil
}

type explainRequest struct {
	Since time.Time `json:"since"`
}

type explained struct {
	Line string `json:"line"`
}

func (s *supervisor) answerExplain(params json.RawMessage) (any, error) {
	var r explainRequest
	if err := parse(params, &r); err != nil {
		return nil, err
	}
	if s.online() != nil {
		return explained{}, nil
	}
	return explained{s.network.Explain(r.Since)}, nil
}

// dial opens a connection to a port of the guest.
func (s *supervisor) dial(ctx context.Context, port uint16) (net.Conn, error) {
	if err := s.online(); err != nil {
		return nil, banger.Wrap(err, "cannot reach port %d of the guest", port)
	}
	return s.network.Dial(ctx, port)
}
