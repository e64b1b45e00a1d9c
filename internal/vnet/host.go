package vnet

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"banger"
)

// HostAddresses gives a Ground.Own: the addresses of the host's interfaces, asked
// for at most once a second. Where they cannot be read the last ones count.
func HostAddresses() func() []netip.Addr {
	var mu sync.Mutex
	var known []netip.Addr
	var read time.Time
	return func() []netip.Addr {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(read) < time.Second {
			return known
		}
		all, err := net.InterfaceAddrs()
		if err != nil {
			return known
		}
		known, read = nil, time.Now()
		for _, a := range all {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				known = append(known, p.Addr().Unmap())
			}
		}
		return known
	}
}

// Upstreams is a Resolver that asks servers ("ADDRESS:PORT") one after the other,
// by TCP where an answer was cut.
type Upstreams []string

// Exchange gives the first answer.
func (u Upstreams) Exchange(ctx context.Context, question *dns.Msg) (*dns.Msg, error) {
	err := errors.New("no server is known")
	for _, server := range u {
		var reply *dns.Msg
		for _, network := range []string{"udp", "tcp"} {
			c := dns.Client{Net: network, Timeout: 3 * time.Second}
			reply, _, err = c.ExchangeContext(ctx, question, server)
			if err != nil || !reply.Truncated {
				break
			}
		}
		if err == nil {
			return reply, nil
		}
	}
	return nil, banger.Errorf(banger.Unavailable, "cannot resolve: %w", err)
}

// ReadUpstreams gives the servers of a file like /etc/resolv.conf.
func ReadUpstreams(path string) (Upstreams, error) {
	c, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil, banger.Errorf(banger.Unavailable, "cannot read the host's resolvers: %w", err)
	}
	var u Upstreams
	for _, server := range c.Servers {
		u = append(u, net.JoinHostPort(server, c.Port))
	}
	return u, nil
}

// hostResolvers asks whom the host asks, which changes as a laptop moves.
type hostResolvers struct {
	path string

	mu    sync.Mutex
	known Upstreams
	read  time.Time
}

// HostResolvers is a Resolver that asks the servers of a file like
// /etc/resolv.conf, which it reads again when that is older than a few seconds.
func HostResolvers(path string) Resolver { return &hostResolvers{path: path} }

const resolversAge = 5 * time.Second

// Exchange asks the servers of the moment. Where the file cannot be read just now,
// as in the middle of a change, those of the last time count.
func (h *hostResolvers) Exchange(ctx context.Context, question *dns.Msg) (*dns.Msg, error) {
	h.mu.Lock()
	if time.Since(h.read) > resolversAge {
		if now, err := ReadUpstreams(h.path); err == nil {
			h.known = now
		}
		h.read = time.Now()
	}
	known := h.known
	h.mu.Unlock()
	return known.Exchange(ctx, question)
}

// PingSocket is a Pinger that uses the sockets that some systems give to ordinary
// users (net.ipv4.ping_group_range).
type PingSocket struct{}

// NewPingSocket gives one where this user may have it, and unavailable elsewhere.
func NewPingSocket() (PingSocket, error) {
	fd, err := openPing()
	if err != nil {
		return PingSocket{}, banger.Errorf(banger.Unavailable, "cannot ping: %w", err).
			Hint("sudo sysctl net.ipv4.ping_group_range='0 2147483647'")
	}
	return PingSocket{}, unix.Close(fd)
}

func openPing() (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMP)
	return fd, os.NewSyscallError("socket", err)
}

// Ping sends data to an address and waits for it to come back. The kernel chooses
// the identifier and lets nothing else through.
func (PingSocket) Ping(ctx context.Context, to netip.Addr, data []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	fd, err := openPing()
	if err != nil {
		return nil, err
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.As4()})
	s := os.NewFile(uintptr(fd), "ping")
	defer s.Close()
	if err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	defer context.AfterFunc(ctx, func() { _ = s.SetDeadline(time.Unix(1, 0)) })()
	request := make([]byte, header.ICMPv4MinimumSize, header.ICMPv4MinimumSize+len(data))
	request[0] = byte(header.ICMPv4Echo)
	binary.BigEndian.PutUint16(request[6:], 1)
	if _, err := s.Write(append(request, data...)); err != nil {
		return nil, err
	}
	reply := make([]byte, chunk)
	n, err := s.Read(reply)
	if err != nil {
		return nil, err
	}
	if n < header.ICMPv4MinimumSize || reply[0] != byte(header.ICMPv4EchoReply) {
		return nil, errors.New("something else than a reply")
	}
	return reply[header.ICMPv4MinimumSize:n], nil
}
