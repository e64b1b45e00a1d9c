package ports

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"
)

// door is a port of the host that leads to one of the guest.
type door struct {
	host     netip.AddrPort
	guest    uint16
	listener *net.TCPListener // nil where it cannot be opened
	failure  error            // why
}

// open listens, with mu held or before there is anybody else.
func (p *Ports) open(d *door) error {
	// No keep-alives: nothing between two sockets of one host forgets them.
	l, err := (&net.ListenConfig{KeepAlive: -1}).Listen(p.ctx, "tcp", d.host.String())
	if err != nil {
		return err
	}
	d.listener = l.(*net.TCPListener)
	p.work.Go(func() { p.accept(d) })
	return nil
}

func (d *door) close() {
	if d.listener != nil {
		_ = d.listener.Close()
	}
}

// accept lets everybody in until the door is closed.
func (p *Ports) accept(d *door) {
	for {
		conn, err := d.listener.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // descriptors ran out, or the client left
			p.config.Log.Warn("cannot accept a connection", "at", d.host, "error", err)
			time.Sleep(10 * time.Millisecond)
		default:
			p.admit(conn, d.guest)
		}
	}
}

// admit begins to carry a connection, if there are not too many.
func (p *Ports) admit(conn *net.TCPConn, port uint16) {
	ctx, cancel := context.WithCancel(p.ctx)
	c := &passage{host: conn, cancel: cancel}
	p.mu.Lock()
	full := p.closed || len(p.conns) >= maxConns
	if !full {
		p.conns[c] = true
		p.work.Add(1)
	}
	p.mu.Unlock()
	if full {
		c.end()
		return
	}
	go func() {
		defer p.work.Done()
		p.config.Count(1)
		defer p.config.Count(-1)
		p.carry(ctx, c, port)
		p.mu.Lock()
		delete(p.conns, c)
		p.mu.Unlock()
	}()
}
