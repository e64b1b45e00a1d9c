package vnet

import (
	"context"
	"net"
	"net/netip"
	"time"

	"banger"
	"banger/internal/vnet/reach"
)

// Dialer reaches the world for the guest. It is given addresses alone, never
// names, and 127.0.0.1 only for what the policy allows of host.vm.
// *net.Dialer is one.
type Dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// Pinger sends an ICMP echo and gives the data of its reply.
type Pinger interface {
	Ping(ctx context.Context, to netip.Addr, data []byte) ([]byte, error)
}

// Config is one VM's network. Guest, Gateway, Dialer and Resolver are needed.
type Config struct {
	Guest, Gateway       netip.Addr
	GuestMAC, GatewayMAC net.HardwareAddr // the usual ones where nil
	MTU                  int              // 1500 where 0
	Ground               reach.Ground     // Guest and Gateway are added to its VMs
	Policy               *reach.Policy    // nothing leaves where nil
	Dialer               Dialer
	Resolver             Resolver
	Pinger               Pinger // pings are refused where nil
	Limits               Limits
	Now                  func() time.Time // time.Now where nil
}

// Limits bounds what one guest can hold; zeroes mean the usual.
type Limits struct {
	TCP       int           // connections, 2048
	HalfOpen  int           // of them under way, 256
	UDP       int           // conversations, 512
	UDPIdle   time.Duration // end of a quiet conversation, 90 s
	Dial      time.Duration // how long one may be under way, 30 s
	Linger    time.Duration // how long the guest may take nothing of one that has ended, 60 s
	DNSSecond int           // questions a second, 100
	DNSBurst  int           // and at once, 300
}

func orDefault[T comparable](v, usual T) T {
	var zero T
	if v == zero {
		return usual
	}
	return v
}

func (c Config) complete() (Config, error) {
	if !c.Guest.Is4() || !c.Gateway.Is4() || c.Guest == c.Gateway || c.Dialer == nil || c.Resolver == nil {
		return c, banger.Errorf(banger.Internal, "cannot make a network: addresses, dialer or resolver are missing")
	}
	if c.GuestMAC == nil {
		c.GuestMAC = reach.GuestMAC
	}
	if c.GatewayMAC == nil {
		c.GatewayMAC = reach.GatewayMAC
	}
	c.MTU = orDefault(c.MTU, 1500)
	if c.Policy == nil {
		c.Policy = &reach.Policy{}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	l := &c.Limits
	l.TCP, l.HalfOpen, l.UDP = orDefault(l.TCP, 2048), orDefault(l.HalfOpen, 256), orDefault(l.UDP, 512)
	l.UDPIdle, l.Dial = orDefault(l.UDPIdle, 90*time.Second), orDefault(l.Dial, 30*time.Second)
	l.Linger = orDefault(l.Linger, time.Minute)
	l.DNSSecond, l.DNSBurst = orDefault(l.DNSSecond, 100), orDefault(l.DNSBurst, 300)
	c.Ground.VMs = append([]netip.Prefix{reach.Single(c.Guest), reach.Single(c.Gateway)}, c.Ground.VMs...)
	return c, nil
}
