package ports

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
)

// schemes are those of ports that are known to speak something else than HTTP.
var schemes = map[uint16]string{
	21: "ftp", 22: "ssh", 25: "smtp", 443: "https", 3306: "mysql", 5432: "postgresql", 5672: "amqp", 5900: "vnc",
	6379: "redis", 8443: "https", 27017: "mongodb",
}

// urlOf is where the host reaches a port of the guest.
func urlOf(host netip.AddrPort, guest uint16) string {
	scheme := schemes[guest]
	if scheme == "" {
		scheme = "http"
	}
	return scheme + "://" + host.String()
}

func portOf(p banger.Port) int {
	n, _ := strconv.Atoi(p.Address[strings.LastIndexByte(p.Address, ':')+1:])
	return n
}

// whyNot says why a port is not forwarded, and what would do it.
func whyNot(host netip.AddrPort, err error) string {
	switch {
	case errors.Is(err, unix.EACCES):
		return fmt.Sprintf("ports below %d of this host are not for users: -p %d:%d would publish it",
			firstFree(), instead(host.Port()), host.Port())
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Sprintf("%s of this host is taken", host)
	}
	return err.Error()
}

// CheckPublish says whether a port of the host could be published now: conflict
// where it is taken.
func CheckPublish(p banger.Publish) error {
	l, err := net.Listen("tcp", p.Host.String())
	if err != nil {
		return cannotPublish(p, err)
	}
	return l.Close()
}

func cannotPublish(p banger.Publish, err error) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return banger.Errorf(banger.Conflict, "cannot publish port %d of the guest: %s of this host is taken", p.Guest, p.Host).
			Hint("choose another, for example -p %d:%d", max(p.Host.Port()+1, 1024), p.Guest)
	case errors.Is(err, unix.EACCES):
		return banger.Errorf(banger.Unauthorized, "cannot publish port %d of the guest: ports below %d of this host are not for users", p.Guest, firstFree()).
			Hint("choose another, for example -p %d:%d", instead(p.Host.Port()), p.Guest)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return banger.Errorf(banger.BadRequest, "cannot publish port %d of the guest: this host has no address %s", p.Guest, p.Host.Addr())
	}
	return banger.Errorf(banger.Unavailable, "cannot publish port %d of the guest at %s: %w", p.Guest, p.Host, err)
}

// instead is a port that resembles one that cannot be had: 8080 for 80.
func instead(port uint16) uint16 { return port + 8000 }

// firstFree is the first port that ordinary users of this host may have.
func firstFree() int {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	n, bad := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || bad != nil {
		return 1024
	}
	return n
}
