// Package loopback divides the host's loopback addresses among daemons: each has a
// prefix, and each of its VMs an address of that by its number.
//
// Who uses a prefix holds it by a unix socket that is bound to a name in the
// abstract namespace and does nothing else. The kernel gives the name back
// whatever ends the holder, so that nothing has to be cleaned up; the namespace
// is that of the network, as the addresses are; and everybody can read who holds
// what. A daemon holds its prefix, and so does each of its shims, which outlive it.
//
// It knows nothing of daemons, shims or VMs.
package loopback

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"banger"
)

// Prefix is the first two octets of addresses: 127.77 has 127.77.0.0 to
// 127.77.255.255.
type Prefix struct{ second byte }

// Parse reads "127.77".
func Parse(s string) (Prefix, error) {
	text, found := strings.CutPrefix(s, "127.")
	n, err := strconv.ParseUint(text, 10, 8)
	if !found || err != nil {
		return Prefix{}, banger.Errorf(banger.BadRequest, "bad loopback prefix %q: it must be two numbers such as 127.77", s)
	}
	return Prefix{byte(n)}, nil
}

func (p Prefix) String() string { return fmt.Sprintf("127.%d", p.second) }

// Of is the address of a VM: its number, which is what the mask of its network
// leaves free of its address there.
func (p Prefix) Of(network netip.Prefix, guest netip.Addr) netip.Addr {
	b := guest.As4()
	n := binary.BigEndian.Uint32(b[:]) & (1<<(32-network.Bits()) - 1)
	return netip.AddrFrom4([4]byte{127, p.second, byte(n >> 8), byte(n)})
}
