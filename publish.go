package banger

import (
	"net/netip"
	"strconv"
	"strings"
)

// Port is a TCP port of a guest and where it is on the host.
type Port struct {
	Address   string   `json:"address"`             // what it listens on in the guest, as in 0.0.0.0:8000; *:8000 while nothing does
	Process   string   `json:"process,omitempty"`   // that listens
	PID       int      `json:"pid,omitempty"`       // in the guest
	URL       string   `json:"url,omitempty"`       // at the VM's own address on the host
	Published []string `json:"published,omitempty"` // URLs of where -p put it
	Reason    string   `json:"reason,omitempty"`    // why there is no URL
}

// Publish is a port of the host that leads to one of the guest.
type Publish struct {
	Host  netip.AddrPort
	Guest uint16
}

// ParsePublish reads HOST:GUEST or ADDRESS:HOST:GUEST, of which the address must be
// one of the host's loopback.
func ParsePublish(s string) (p Publish, err error) {
	bad := func(why string) (Publish, error) {
		return Publish{}, Errorf(BadRequest, "bad port to publish %q: %s", s, why).Hint("for example -p 8080:80, or -p 127.0.0.1:8080:80")
	}
	text, protocol, _ := strings.Cut(s, "/")
	if protocol == "udp" {
		return bad("only TCP is forwarded")
	}
	i := strings.LastIndexByte(text, ':')
	if i < 0 || protocol != "" && protocol != "tcp" {
		return bad("it must be HOST:GUEST")
	}
	host, guest := text[:i], text[i+1:]
	if !strings.Contains(host, ":") {
		host = "127.0.0.1:" + host
	}
	if p.Host, err = netip.ParseAddrPort(host); err != nil || p.Host.Port() == 0 {
		return bad("what comes before the last colon is no port of the host")
	}
	n, err := strconv.ParseUint(guest, 10, 16)
	if err != nil || n == 0 {
		return bad("what comes last is no port of the guest")
	}
	if !p.Host.Addr().IsLoopback() {
		return bad("ports are published on the host's loopback only")
	}
	p.Guest = uint16(n)
	return p, nil
}

// ParsePublishes reads a list of them, in which no port of the host may come
// twice.
func ParsePublishes(list []string) ([]Publish, error) {
	all := make([]Publish, 0, len(list))
	taken := map[netip.AddrPort]bool{}
	for _, s := range list {
		p, err := ParsePublish(s)
		if err != nil {
			return nil, err
		}
		if taken[p.Host] {
			return nil, Errorf(BadRequest, "bad port to publish %q: %s is published twice", s, p.Host)
		}
		taken[p.Host] = true
		all = append(all, p)
	}
	return all, nil
}
