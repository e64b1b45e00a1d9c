package guest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"banger/internal/guestwire"

	"golang.org/x/sys/unix"
)

// network is the guest's card and what it was set to. All but the address is the
// same in all VMs, so that a fork of a template has nothing else to change.
type network struct {
	mu    sync.Mutex
	index int32 // of the card, 0 before it was found
	nl    netlink
	is    guestwire.Network // as it was set last
}

// apply sets the card to what is asked, as far as it is not.
func (w *network) apply(asked *guestwire.Network) error {
	if asked == nil {
		return nil
	}
	n := new(guestwire.Network)
	*n = *asked
	n.Drop = false // done
	w.mu.Lock()
	defer w.mu.Unlock()
	if *n == w.is {
		return nil
	}
	if w.index == 0 || n.MAC != w.is.MAC {
		if err := w.bringUp(n.MAC); err != nil {
			return err
		}
	}
	was := w.is
	w.is = guestwire.Network{} // whatever fails is tried again
	if n.Address != was.Address {
		if err := w.readdress(was.Address, n.Address); err != nil {
			return fmt.Errorf("its address %s: %w", dotted(n.Address), err)
		}
	}
	if n.Gateway != was.Gateway || n.GatewayMAC != was.GatewayMAC {
		if err := w.route(n); err != nil {
			return fmt.Errorf("its gateway %s: %w", dotted(n.Gateway), err)
		}
	}
	w.is = *n
	return nil
}

// bringUp finds the card and turns it on. It has no IPv6: nobody would answer.
func (w *network) bringUp(mac [6]byte) error {
	name, index, err := findCard(mac)
	if err != nil {
		return err
	}
	if w.nl.fd == 0 {
		if w.nl, err = openNetlink(); err != nil {
			return err
		}
	}
	// Where there is no IPv6 there is nothing to turn off.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0); err != nil && !os.IsNotExist(err) {
		return err
	}
	w.index, w.is = index, guestwire.Network{}
	var r request
	body := append([]byte{unix.AF_UNSPEC, 0, 0, 0}, int32Bytes(w.index)...)
	body = append(append(body, int32Bytes(unix.IFF_UP)...), int32Bytes(unix.IFF_UP)...)
	r.add(unix.RTM_NEWLINK, 0, body...)
	return w.nl.do(r)
}

func findCard(mac [6]byte) (name string, index int32, err error) {
	const cards = "/sys/class/net/"
	want := fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5])
	all, err := os.ReadDir(cards)
	if err != nil {
		return "", 0, err
	}
	for _, card := range all {
		if address, _ := os.ReadFile(cards + card.Name() + "/address"); strings.TrimSpace(string(address)) != want {
			continue
		}
		text, err := os.ReadFile(cards + card.Name() + "/ifindex")
		n, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 32)
		return card.Name(), int32(n), err
	}
	return "", 0, fmt.Errorf("there is no card %s", want)
}

func dotted(a [4]byte) string { return fmt.Sprintf("%d.%d.%d.%d", a[0], a[1], a[2], a[3]) }

// readdress gives the card another address, and takes the one it had. The new one
// comes first: with its last address a card loses its routes.
//
// In a fork of a template each of the two costs some 10 ms under emulation.
func (w *network) readdress(old, now [4]byte) error {
	var add request
	add.add(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, w.addressBody(now)...)
	add.attribute(unix.IFA_LOCAL, now[:])
	if err := w.nl.do(add); err != nil || old == [4]byte{} {
		return err
	}
	if isNobodys(old) {
		time.AfterFunc(leaveAddress, func() { w.leave(old) })
		return nil
	}
	return w.remove(old)
}

// leaveAddress is how long after a start the address of the machine it was a fork
// of is taken away, so that a first command comes before it. Until then nobody
// uses that: it is one of the link alone.
const leaveAddress = time.Second

// isNobodys says whether an address is that of a machine which is nobody's yet.
func isNobodys(a [4]byte) bool { return a[0] == 169 && a[1] == 254 }

func (w *network) leave(address [4]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.is.Address != address {
		_ = w.remove(address) // nobody has a use for it, and it is in nobody's way
	}
}

func (w *network) remove(address [4]byte) error {
	var remove request
	remove.add(unix.RTM_DELADDR, 0, w.addressBody(address)...)
	remove.attribute(unix.IFA_LOCAL, address[:])
	err := w.nl.do(remove)
	if err == unix.EADDRNOTAVAIL {
		return nil // somebody in the guest was quicker
	}
	return err
}

func (w *network) addressBody(address [4]byte) []byte {
	scope := byte(unix.RT_SCOPE_UNIVERSE)
	if isNobodys(address) {
		scope = unix.RT_SCOPE_LINK
	}
	return append([]byte{unix.AF_INET, 32, 0, scope}, int32Bytes(w.index)...)
}

// route makes the gateway the way to everywhere. Its station is known, so that the
// guest need not ask for it.
func (w *network) route(n *guestwire.Network) error {
	const everywhere, statically, permanent = 0, unix.RTPROT_STATIC, unix.NUD_PERMANENT
	var r request
	r.add(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE,
		unix.AF_INET, everywhere, 0, 0, unix.RT_TABLE_MAIN, statically, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST,
		unix.RTNH_F_ONLINK, 0, 0, 0)
	r.attribute(unix.RTA_OIF, int32Bytes(w.index))
	r.attribute(unix.RTA_GATEWAY, n.Gateway[:])
	body := append([]byte{unix.AF_INET, 0, 0, 0}, int32Bytes(w.index)...)
	r.add(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, append(body, permanent, 0, 0, 0)...)
	r.attribute(unix.NDA_DST, n.Gateway[:])
	r.attribute(unix.NDA_LLADDR, n.GatewayMAC[:])
	return w.nl.do(r)
}
