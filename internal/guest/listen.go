package guest

import (
	"net"
	"os"
	"path/filepath"
	"sync"

	"banger/internal/guestwire"
)

// mostIncoming is how many connections wait for the host at one listener; more
// wait in the kernel.
const mostIncoming = 64

// incoming are the connections that wait for the host to take them.
type incoming struct {
	mu    sync.Mutex
	last  uint32
	conns map[uint32]arrival
}

type arrival struct {
	halfCloser
	at   *guestwire.Stream // of the listener
	left func()            // makes room for the next
}

func (i *incoming) add(a arrival) uint32 {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.conns == nil {
		i.conns = map[uint32]arrival{}
	}
	i.last++
	i.conns[i.last] = a
	return i.last
}

// take gives a connection to whoever asks first.
func (i *incoming) take(n uint32) (arrival, bool) {
	i.mu.Lock()
	a, ok := i.conns[n]
	delete(i.conns, n)
	i.mu.Unlock()
	if ok {
		a.left()
	}
	return a, ok
}

// drop closes those that came to a listener.
func (i *incoming) drop(at *guestwire.Stream) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for n, a := range i.conns {
		if a.at == at {
			_ = a.Close()
			delete(i.conns, n)
		}
	}
}

// listen tells the host of connections until it has heard enough.
func (a *agent) listen(s *guestwire.Stream) {
	r, err := guestwire.ParseListen(s.Body)
	if err != nil {
		s.Fail("bad_request", err.Error())
		return
	}
	l, err := a.listener(r)
	if err != nil {
		answer(s, nil, err)
		return
	}
	go func() {
		<-s.Done()
		_ = l.Close()
	}()
	err = s.Control(guestwire.Control{Code: guestwire.ControlConnected, Body: []byte(l.Addr().String())})
	if err == nil {
		err = a.announce(s, l)
	}
	_ = l.Close()
	answer(s, nil, failf("unavailable", "cannot listen at %s in the guest any more: %w", l.Addr(), systemReason(err)))
}

// announce gives each connection a number. Those that nobody took when the host
// has gone are closed.
func (a *agent) announce(s *guestwire.Stream, l net.Listener) error {
	defer a.incoming.drop(s)
	room := make(chan struct{}, mostIncoming)
	for {
		select {
		case room <- struct{}{}:
		case <-s.Done():
			return net.ErrClosed
		}
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		n := a.incoming.add(arrival{conn.(halfCloser), s, func() { <-room }})
		if err := s.Control(guestwire.Control{Code: guestwire.ControlIncoming, Body: guestwire.AppendNumber(nil, n)}); err != nil {
			return err
		}
	}
}

// accept joins a stream to a connection that waits.
func (a *agent) accept(s *guestwire.Stream) {
	n, err := guestwire.ParseNumber(s.Body)
	if err != nil {
		s.Fail("bad_request", err.Error())
		return
	}
	conn, ok := a.incoming.take(n)
	if !ok {
		s.Fail("not_found", "no such connection waits in the guest")
		return
	}
	answer(s, nil, connected(s, conn.halfCloser))
}

// listener makes the socket.
func (a *agent) listener(r guestwire.Listen) (net.Listener, error) {
	switch r.Network {
	case "tcp":
		l, err := net.Listen("tcp", r.Address)
		return l, cannotListen(r.Address, err)
	case "unix":
		u, err := a.machine.lookup(r.User, r.UID)
		if err != nil {
			return nil, err
		}
		l, err := listenUnix(r.Address, u)
		return l, cannotListen(r.Address, err)
	}
	return nil, failf("bad_request", "cannot listen at %q in the guest: the network is neither tcp nor unix", r.Address)
}

func cannotListen(address string, err error) error {
	if err == nil {
		return nil
	}
	return failf("unavailable", "cannot listen at %s in the guest: %w", address, systemReason(err))
}

// listenUnix makes a socket that is the user's alone.
func listenUnix(path string, u user) (net.Listener, error) {
	dir := ""
	if path == "" {
		var err error
		if dir, err = os.MkdirTemp("/tmp", "ssh-"); err != nil {
			return nil, err
		}
		path = filepath.Join(dir, "agent")
	}
	l, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	for _, of := range []string{path, dir} {
		if err == nil && of != "" && !u.self {
			err = os.Chown(of, int(u.uid), int(u.gid))
		}
	}
	if err != nil {
		if l != nil {
			_ = l.Close()
		}
		return nil, err
	}
	return ownDir{l, dir}, nil
}

// ownDir is a listener whose directory goes with it.
type ownDir struct {
	net.Listener
	dir string
}

func (o ownDir) Close() error {
	err := o.Listener.Close()
	if o.dir != "" {
		_ = os.Remove(o.dir)
	}
	return err
}
