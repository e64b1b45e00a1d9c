package shim

import (
	"context"
	"net/netip"
	"time"

	"banger"
	"banger/internal/guestlink"
	"banger/internal/guestwire"
	"banger/internal/loopback"
	"banger/internal/ports"
)

// Ports is where a guest's ports are on the host.
type Ports struct {
	Address netip.Addr     `json:"address,omitzero"` // the VM's own
	Prefix  string         `json:"prefix,omitempty"` // that it is of, held for as long as the VM runs
	Owner   loopback.Owner `json:"owner,omitempty"`  // of that
	Publish []string       `json:"publish,omitempty"`
}

// openPorts takes the addresses of the host that are this VM's.
func (s *supervisor) openPorts() error {
	l := s.launch.Ports
	if l == nil {
		return nil
	}
	published, err := banger.ParsePublishes(l.Publish)
	if err != nil {
		return err
	}
	if err := s.holdPrefix(l); err != nil {
		s.log.Warn("the VM has no address on the host", "error", err)
		l.Address = netip.Addr{}
	}
	c := ports.Config{
		Address: l.Address, Published: published, Guest: inward{s}, Log: s.log, Count: s.count,
	}
	if s.launch.Network != nil {
		c.GuestIP = s.launch.Network.Guest
	}
	s.ports, err = ports.Open(c)
	return err
}

// holdPrefix keeps the addresses from other daemons' VMs. Without that the VM's own
// is not its own.
func (s *supervisor) holdPrefix(l *Ports) error {
	if l.Prefix == "" {
		return nil
	}
	prefix, err := loopback.Parse(l.Prefix)
	if err == nil {
		s.prefix, err = loopback.Usual.Hold(l.Owner, prefix, s.launch.ID)
	}
	return err
}

func (s *supervisor) closePorts() {
	if s.ports != nil {
		s.ports.Close()
	}
	if s.prefix != nil {
		_ = s.prefix.Close()
	}
}

// listenersDelay is when a guest is asked for its listeners: a short command has
// come and gone by then, and did not have to share the processor with that.
const listenersDelay = 250 * time.Millisecond

// listenersPause is how long a guest that could not tell them is left alone, at first
// and at most: it is logged each time.
const (
	listenersPause    = time.Second
	maxListenersPause = time.Minute
)

// followListeners forwards what listens in the guest until its link is lost.
func (s *supervisor) followListeners(link *guestlink.Link) {
	if s.ports == nil {
		return
	}
	defer s.ports.Lost()
	select {
	case <-time.After(listenersDelay):
	case <-link.Conn().Done():
		return
	}
	for pause := listenersPause; link.Conn().Err() == nil; pause = min(2*pause, maxListenersPause) {
		err := link.Listeners(context.Background(), s.updatePorts)
		if link.Conn().Err() != nil {
			return
		}
		s.log.Warn("the guest's listeners are not known", "error", err)
		s.setUnlisted(err)
		if banger.CodeOf(err) == banger.UnknownMethod {
			<-link.Conn().Done()
			return
		}
		select {
		case <-time.After(pause):
		case <-link.Conn().Done():
		}
	}
}

// updatePorts takes up what the guest says listens in it.
func (s *supervisor) updatePorts(all []guestwire.Listener) {
	list := make([]ports.Listener, len(all))
	for i, l := range all {
		list[i] = ports.Listener{Address: l.Address, PID: int(l.PID), Process: l.Process}
	}
	s.ports.Update(list)
	s.setUnlisted(nil)
}

func (s *supervisor) setUnlisted(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unlisted = err
}

// inward is how ports reach the guest.
type inward struct{ s *supervisor }

func (in inward) Dial(ctx context.Context, port uint16) (ports.Conn, error) {
	if _, err := in.s.upLink(); err != nil {
		return nil, err
	}
	c, err := in.s.dial(ctx, port)
	if err != nil {
		return nil, err
	}
	return c.(ports.Conn), nil
}

func (in inward) DialInside(ctx context.Context, address netip.AddrPort) (ports.Conn, error) {
	link, err := in.s.upLink()
	if err != nil {
		return nil, err
	}
	pipe, err := link.Dial(ctx, "tcp", address.String())
	if err != nil {
		return nil, err
	}
	return pipe, nil
}

// upLink is the link to a guest that is up.
func (s *supervisor) upLink() (*guestlink.Link, error) {
	link, _, _, err := s.guest()
	if err == nil && link == nil {
		err = banger.Errorf(banger.Unavailable, "%s is still booting", s.launch.Name)
	}
	return link, err
}

// listPorts says where what listens in the guest is.
func (s *supervisor) listPorts() (any, error) {
	if s.ports == nil {
		return nil, banger.Errorf(banger.Unavailable, "%s was started by an earlier banger, which forwarded no ports", s.launch.Name).
			Hint("banger vm restart %s", s.launch.Name)
	}
	s.mu.Lock()
	err := s.unlisted
	s.mu.Unlock()
	if err != nil {
		return nil, banger.Errorf(banger.CodeOf(err), "the guest of %s cannot say what listens in it: %w", s.launch.Name, err).
			Hint("banger vm restart %s", s.launch.Name)
	}
	return s.ports.List(), nil
}

// hostAddress is the VM's own on the host, or "".
func (s *supervisor) hostAddress() string {
	if s.launch.Ports == nil || !s.launch.Ports.Address.IsValid() {
		return ""
	}
	return s.launch.Ports.Address.String()
}
