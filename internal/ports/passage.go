package ports

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// passage is one connection from the host into the guest.
type passage struct {
	host   *net.TCPConn
	cancel context.CancelFunc

	mu    sync.Mutex
	guest Conn // nil until there is one
	over  bool
}

// end breaks it: whoever is at either end sees that it did not end well.
func (c *passage) end() {
	c.cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	_ = c.host.SetLinger(0)
	_ = c.host.Close()
	if c.guest != nil {
		_ = c.guest.Close()
	}
}

// reached notes the guest's end; false means that the passage is over.
func (c *passage) reached(guest Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		_ = guest.Close()
		return false
	}
	c.guest = guest
	return true
}

// carry carries one connection to its end. Where nobody in the guest accepts it,
// it breaks, since it was accepted here already.
func (p *Ports) carry(ctx context.Context, c *passage, port uint16) {
	defer c.cancel()
	guest, err := p.dial(ctx, port)
	if err != nil {
		p.config.Log.Debug("cannot reach a port of the guest", "port", port, "error", err)
		c.end()
		return
	}
	if !c.reached(guest) {
		return
	}
	var up sync.WaitGroup
	up.Go(func() { c.half(guest, c.host, guest.CloseWrite) })
	c.half(c.host, guest, c.host.CloseWrite)
	up.Wait()
	_ = c.host.Close()
	_ = guest.Close()
}

// half carries one direction. Its end is passed on; if it breaks, all does.
func (c *passage) half(to io.Writer, from io.Reader, closeWrite func() error) {
	err := pass(to, from)
	if err == nil {
		err = closeWrite()
	}
	if err != nil {
		c.end()
	}
}

// chunk is what is read at once while much comes.
const chunk = 32 << 10

var chunks = sync.Pool{New: func() any { return new([chunk]byte) }}

// pass copies until the end. Thousands of connections that are silent hold no
// memory to speak of: only one that says much gets a chunk.
func pass(to io.Writer, from io.Reader) error {
	if w, ok := from.(io.WriterTo); ok && !isTCP(from) {
		_, err := w.WriteTo(to)
		return err
	}
	var little [512]byte
	for {
		n, err := step(to, from, little[:])
		if n == len(little) && err == nil {
			err = passMuch(to, from)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// isTCP says whether WriteTo would come with a buffer of its own.
func isTCP(r io.Reader) bool { _, ok := r.(*net.TCPConn); return ok }

func passMuch(to io.Writer, from io.Reader) error {
	buf := chunks.Get().(*[chunk]byte)
	defer chunks.Put(buf)
	for {
		n, err := step(to, from, buf[:])
		if err != nil || n < 512 {
			return err
		}
	}
}

func step(to io.Writer, from io.Reader, buf []byte) (int, error) {
	n, err := from.Read(buf)
	if n > 0 {
		if _, err := to.Write(buf[:n]); err != nil {
			return n, err
		}
	}
	return n, err
}

// dialTime bounds one way to reach the guest.
const dialTime = 10 * time.Second

// dial tries the ways to whatever listens on a port.
func (p *Ports) dial(ctx context.Context, port uint16) (Conn, error) {
	p.mu.Lock()
	ways := p.waysTo(port)
	p.mu.Unlock()
	var errs []error
	for _, way := range ways {
		ctx, cancel := context.WithTimeout(ctx, dialTime)
		conn, err := way.dial(ctx, p.config.Guest, port)
		cancel()
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// way is by the network where it has no address.
type way netip.Addr

func (w way) dial(ctx context.Context, g Guest, port uint16) (Conn, error) {
	if inside := netip.Addr(w); inside.IsValid() {
		return g.DialInside(ctx, netip.AddrPortFrom(inside, port))
	}
	return g.Dial(ctx, port)
}

var (
	byNetwork = way{}
	loopback4 = way(netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	loopback6 = way(netip.IPv6Loopback())
)

// waysTo lists how a port can be reached, with mu held: by the network if that
// leads there, which is the shorter way, and from inside, which always does.
func (p *Ports) waysTo(port uint16) []way {
	var network, inside []way
	for _, l := range p.listeners {
		if l.Address.Port() != port {
			continue
		}
		switch a := l.Address.Addr().Unmap(); {
		case a == netip.IPv4Unspecified():
			network, inside = append(network, byNetwork), append(inside, loopback4)
		case a == netip.IPv6Unspecified():
			network, inside = append(network, byNetwork), append(inside, loopback6)
		case a == p.config.GuestIP:
			network, inside = append(network, byNetwork), append(inside, way(a))
		default:
			inside = append(inside, way(a))
		}
	}
	if len(inside) == 0 { // published, and not known to listen yet
		return []way{byNetwork, loopback4}
	}
	return append(network[:min(len(network), 1)], slices.Compact(inside)...)
}
