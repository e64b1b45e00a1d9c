package ports

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"banger"
)

// Conn is a connection to something in the guest.
type Conn interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// Guest is how what listens is reached.
type Guest interface {
	// Dial connects to a port at the guest's address on its network.
	Dial(ctx context.Context, port uint16) (Conn, error)
	// DialInside connects to an address from inside the guest.
	DialInside(ctx context.Context, address netip.AddrPort) (Conn, error)
}

// Listener is a TCP socket of the guest that listens.
type Listener struct {
	Address netip.AddrPort
	PID     int
	Process string
}

// Config is the ports of one VM. All fields are needed.
type Config struct {
	Address   netip.Addr // of the VM on the host; without one only what is published is forwarded
	GuestIP   netip.Addr // of the guest on its network
	Published []banger.Publish
	Guest     Guest
	Count     func(n int) // hears of connections that begin (1) and end (-1)
	Log       *slog.Logger
}

// Bounds of what one guest can have its host hold: connections into it, and
// ports.
const (
	maxConns = 1024
	maxDoors = 512
)

// retryInterval is when a port of the host that was taken is tried again.
const retryInterval = time.Second

var errTooMany = errors.New("the guest has more ports than are forwarded")

// Ports forwards the ports of one VM. Close it.
type Ports struct {
	config Config
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu        sync.Mutex
	listeners []Listener
	forwards  map[uint16]*door // at Address, by port
	published []*door
	conns     map[*passage]bool
	retrying  bool // retry is under way
	closed    bool
}

// Open begins to publish what is to be published: conflict where a port of the
// host is taken.
func Open(c Config) (*Ports, error) {
	ctx, cancel := context.WithCancel(context.Background())
	p := &Ports{
		config: c, ctx: ctx, cancel: cancel, forwards: map[uint16]*door{}, conns: map[*passage]bool{},
	}
	for _, pub := range c.Published {
		d := &door{host: pub.Host, guest: pub.Guest}
		if err := p.open(d); err != nil {
			p.Close()
			return nil, cannotPublish(pub, err)
		}
		p.published = append(p.published, d)
	}
	return p, nil
}

// Update has the ports be those of the guest's listeners. Connections to one that
// is gone go on until they end by themselves.
func (p *Ports) Update(all []Listener) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listeners = all
	p.reconcile()
}

// Lost ends all connections and ports of a guest that is gone. What is published
// stays, for the next.
func (p *Ports) Lost() {
	p.Update(nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.end()
	}
}

// reconcile opens and closes doors, with mu held. Where a port of the host was
// taken it tries again.
func (p *Ports) reconcile() {
	if p.closed || !p.config.Address.IsValid() {
		return
	}
	opened, wanted := 0, map[uint16]bool{}
	for _, l := range p.listeners {
		wanted[l.Address.Port()] = true
	}
	for port, d := range p.forwards {
		if !wanted[port] {
			d.close()
			delete(p.forwards, port)
		} else if d.listener != nil {
			opened++
		}
	}
	for port := range wanted {
		if d := p.forwards[port]; d != nil && d.listener != nil {
			continue
		}
		d := &door{host: netip.AddrPortFrom(p.config.Address, port), guest: port}
		d.failure = errTooMany
		if opened < maxDoors {
			d.failure = p.open(d)
		}
		if d.failure == nil {
			opened++
		}
		p.forwards[port] = d
	}
	if !p.retrying && p.mayPass() {
		p.retrying = true
		p.work.Go(p.retry)
	}
}

// mayPass says whether there is a port that might be had later, without anything
// having changed in the guest.
func (p *Ports) mayPass() bool {
	for _, d := range p.forwards {
		if d.failure != nil && d.failure != errTooMany && !errors.Is(d.failure, unix.EACCES) {
			return true
		}
	}
	return false
}

// retry tries again until there is no such port.
func (p *Ports) retry() {
	tick := time.NewTicker(retryInterval)
	defer tick.Stop()
	for more := true; more; {
		select {
		case <-tick.C:
		case <-p.ctx.Done():
			return
		}
		p.mu.Lock()
		p.reconcile()
		p.retrying = p.mayPass()
		more = p.retrying
		p.mu.Unlock()
	}
}

// List says what there is, in the order of the ports.
func (p *Ports) List() []banger.Port {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reconcile()
	published := map[uint16][]string{}
	for _, d := range p.published {
		published[d.guest] = append(published[d.guest], urlOf(d.host, d.guest))
	}
	list := []banger.Port{}
	silent := maps.Clone(published)
	for _, l := range p.listeners {
		port := l.Address.Port()
		row := banger.Port{Address: l.Address.String(), Process: l.Process, PID: l.PID, Published: published[port]}
		if d := p.forwards[port]; d != nil && d.listener != nil {
			row.URL = urlOf(d.host, port)
		} else if d != nil {
			row.Reason = whyNot(d.host, d.failure)
		} else {
			row.Reason = "no address of this host was free for this VM"
		}
		list = append(list, row)
		delete(silent, port)
	}
	for port, urls := range silent {
		list = append(list, banger.Port{Address: fmt.Sprintf("*:%d", port), Published: urls, Reason: "nothing listens in the guest"})
	}
	slices.SortStableFunc(list, func(x, y banger.Port) int { return cmp.Compare(portOf(x), portOf(y)) })
	return list
}

// Close ends everything and waits until nothing runs.
func (p *Ports) Close() {
	p.mu.Lock()
	p.closed = true
	for _, d := range p.forwards {
		d.close()
	}
	for _, d := range p.published {
		d.close()
	}
	for c := range p.conns {
		c.end()
	}
	p.mu.Unlock()
	p.cancel()
	p.work.Wait()
}
