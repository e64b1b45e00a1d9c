package vnet

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"banger"
	"banger/internal/vnet/reach"
)

const nic = tcpip.NICID(1)

// Network is the network of one VM. Close it.
type Network struct {
	config   Config
	stack    *stack.Stack
	link     *link
	names    *names
	records  *records
	counters *counters
	traffic  atomic.Uint64 // see Traffic
	dns      []*dns.Server
	pings    chan struct{}

	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup // everything that runs until Close

	mu     sync.Mutex
	policy *reach.Policy
	flows  map[*flow]struct{}
	open   map[string]int // flows by protocol
	serves bool
	closed bool
}

// New makes a network that nobody is attached to yet.
func New(c Config) (*Network, error) {
	c, err := c.complete()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &Network{
		config: c, policy: c.Policy, ctx: ctx, cancel: cancel,
		names: newNames(c.Now), records: newRecords(c.Now), counters: &counters{},
		flows: map[*flow]struct{}{}, open: map[string]int{}, pings: make(chan struct{}, maxPings),
	}
	n.link = newLink(c, n.counters)
	if err := n.build(); err != nil {
		n.Close()
		return nil, banger.Errorf(banger.Internal, "cannot make a network: %w", err)
	}
	return n, nil
}

func (n *Network) build() error {
	n.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	if err := tune(n.stack); err != nil {
		return err
	}
	// Promiscuous: packets to any address are ours. Spoofing: we answer as any.
	steps := []func() tcpip.Error{
		func() tcpip.Error { return n.stack.CreateNIC(nic, n.link) },
		func() tcpip.Error {
			return n.stack.AddProtocolAddress(nic, tcpip.ProtocolAddress{
				Protocol:          ipv4.ProtocolNumber,
				AddressWithPrefix: toTCPIP(n.config.Gateway).WithPrefix(),
			}, stack.AddressProperties{})
		},
		func() tcpip.Error { return n.stack.SetPromiscuousMode(nic, true) },
		func() tcpip.Error { return n.stack.SetSpoofing(nic, true) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return stackError(err)
		}
	}
	n.stack.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}})
	forwarder := tcp.NewForwarder(n.stack, 0, n.config.Limits.HalfOpen, n.forwardTCP)
	n.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, forwarder.HandlePacket)
	n.stack.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(n.stack, n.forwardUDP).HandlePacket)
	n.stack.SetTransportProtocolHandler(icmp.ProtocolNumber4, n.handleICMP)
	return n.startDNS()
}

// tune bounds the memory of a connection and lets it recover from losses, which
// there are where the guest is slower than its queue.
func tune(s *stack.Stack) error {
	sack, moderate := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true)
	send := tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: 256 << 10, Max: 2 << 20}
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: 256 << 10, Max: 2 << 20}
	for _, option := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &send, &receive} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, option); err != nil {
			return stackError(err)
		}
	}
	return nil
}

// Serve moves frames between the guest and the network until the descriptor
// ends, Close is called or ctx is done, and closes the descriptor. When it returns the
// guest's connections have ended: that machine is gone. One at a time. A cable that is
// a syscall.Conn is faster: to any other a frame goes in several writes, each of which
// wakes whoever reads.
func (n *Network) Serve(ctx context.Context, cable io.ReadWriteCloser, f reach.Framing) error {
	if err := n.begin(); err != nil {
		cable.Close()
		return err
	}
	defer n.work.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(n.ctx, cancel)()
	defer context.AfterFunc(ctx, func() { cable.Close() })()
	var writing sync.WaitGroup
	writing.Go(func() {
		defer cancel() // a descriptor that takes nothing is at its end
		n.write(ctx, cable, f)
	})
	n.link.attach(newStraight(cable, f))
	err := readFrames(cable, f, n.link.deliver)
	cancel()
	writing.Wait()
	n.link.detach()
	n.endFlows(func(*flow) bool { return true })
	n.mu.Lock()
	n.serves = false
	n.mu.Unlock()
	if err == io.EOF || n.ctx.Err() != nil {
		return nil
	}
	return banger.Errorf(banger.Unavailable, "the guest's network ended: %w", err)
}

func (n *Network) begin() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || n.serves {
		return banger.Errorf(banger.Conflict, "cannot attach a guest: the network is closed or has one")
	}
	n.serves = true
	n.work.Add(1)
	return nil
}

func (n *Network) write(ctx context.Context, cable io.Writer, f reach.Framing) {
	var b batch
	var pkts []*stack.PacketBuffer
	for {
		var rest []byte
		rest, pkts = n.link.pop(pkts)
		if len(rest) == 0 && len(pkts) == 0 {
			select {
			case <-ctx.Done():
				return
			case <-n.link.wake:
			}
			continue
		}
		var err error
		if len(rest) > 0 {
			_, err = cable.Write(rest)
		}
		if err == nil {
			err = b.write(cable, f, n.link.header, pkts)
		}
		for i, pkt := range pkts {
			pkt.DecRef()
			pkts[i] = nil
		}
		if err != nil {
			return
		}
		n.counters.framesOut.Add(uint64(len(pkts)))
	}
}

// Policy is the one in force.
func (n *Network) Policy() *reach.Policy {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.policy
}

// SetPolicy puts p in force and ends what it forbids before it returns; how many
// connections that were it says.
func (n *Network) SetPolicy(p *reach.Policy) int {
	if p == nil {
		p = &reach.Policy{}
	}
	n.mu.Lock()
	n.policy = p
	n.mu.Unlock()
	ended := n.endFlows(func(f *flow) bool { return !p.Check(n.config.Ground, f.to).Allowed })
	n.counters.ended.Add(uint64(ended))
	return ended
}

// Traffic grows whenever the guest and the world outside have something for each
// other: with bytes of a connection that stands, either way, and with answers to
// datagrams and pings. What is refused, or nobody answers, leaves it as it is, and so
// do names that were looked up and connections from the host.
func (n *Network) Traffic() uint64 { return n.traffic.Load() }

// Counters says what was dropped and refused so far.
func (n *Network) Counters() reach.Counters {
	c := n.counters.read()
	if n.stack != nil {
		c.HalfOpen = n.stack.Stats().TCP.ForwardMaxInFlightDrop.Value()
	}
	return c
}

// Records gives what was reached and what was refused, the latest first.
func (n *Network) Records() []reach.Record { return n.records.list() }

// Recall adds what was known of the VM's network before this one was made, the latest
// first: what Records gave then.
func (n *Network) Recall(earlier []reach.Record) { n.records.recall(earlier) }

// Answers gives the names that the guest may go by, for a network that is made anew
// under a guest that stands still meanwhile.
func (n *Network) Answers() []reach.Answer { return n.names.list() }

// RecallAnswers has those count again that Answers gave then. The time that was left
// of them is left: none has passed for what the guest keeps of them.
func (n *Network) RecallAnswers(earlier []reach.Answer) { n.names.recall(earlier) }

// Learn gives the --allow rules that everything so far needed.
func (n *Network) Learn() []string { return reach.Learn(n.records.list()) }

// Explain says in one line what was refused since then and which flag allows it,
// and nothing where nothing was refused.
func (n *Network) Explain(since time.Time) string {
	return explain(n.records.list(), since, n.Policy().NAT())
}

// Close ends every connection and waits until nothing runs.
func (n *Network) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	n.mu.Unlock()
	n.cancel()
	n.endFlows(func(*flow) bool { return true })
	if n.stack != nil {
		n.stack.Close() // first: Shutdown waits for answers that the guest does not read
	}
	for _, s := range n.dns {
		_ = s.Shutdown() // of one that never ran: nothing to end
	}
	n.work.Wait()
	if n.stack != nil {
		n.stack.Destroy()
	}
	return nil
}

// stackFault is an error of the stack, which are no Go errors.
type stackFault struct{ of tcpip.Error }

func (e stackFault) Error() string { return e.of.String() }

func stackError(err tcpip.Error) error {
	if err == nil {
		return nil
	}
	return stackFault{err}
}
