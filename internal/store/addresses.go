package store

import (
	"context"
	"encoding/binary"
	"net/netip"
	"strings"

	"banger"
)

// The first two numbers of a network are its own address and its gateway's.
// The last one a VM may have also bounds the loopback address made of it,
// which has room for two octets.
const (
	firstNumber = 2
	maxNumber   = 1<<16 - 2
)

// ParseNetwork reads network_prefix: an IPv4 CIDR, or three octets, which
// mean a /24.
func ParseNetwork(s string) (netip.Prefix, error) {
	text := s
	if strings.Count(s, ".") == 2 && !strings.Contains(s, "/") {
		text += ".0/24"
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || !p.Addr().Is4() || p.Bits() > 30 {
		return netip.Prefix{}, banger.Errorf(banger.BadRequest, "bad network prefix %q: not an IPv4 network of at least 4 addresses", s).
			Hint(`for example network_prefix = "10.77.0.0/16"`)
	}
	return p.Masked(), nil
}

// HostNumber is a VM's number: the part of its address that network's mask
// leaves free. It is false for what is no IPv4 address.
func HostNumber(network netip.Prefix, address string) (int, bool) {
	a, err := netip.ParseAddr(address)
	if err != nil || !a.Is4() {
		return 0, false
	}
	b := a.As4()
	return int(binary.BigEndian.Uint32(b[:]) & hostMask(network)), true
}

func hostMask(network netip.Prefix) uint32 { return 1<<(32-network.Bits()) - 1 }

// numbered is the address with number n.
func numbered(network netip.Prefix, n int) string {
	b := network.Addr().As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])|uint32(n))
	return netip.AddrFrom4(b).String()
}

// ReserveVM writes a new VM's row and gives it, in the same transaction, the
// first address of network that no row has; or vm.GuestIP, where that is
// set. It returns the row as it was written. Like UpsertVM it does not write
// the workspace. A taken id, name or address is AlreadyExists, an exhausted
// network Unavailable.
func (s *Store) ReserveVM(ctx context.Context, vm banger.VM, network string) (banger.VM, error) {
	prefix, err := ParseNetwork(network)
	if err != nil {
		return banger.VM{}, fail(err, "cannot create VM %s", vm.Name)
	}
	var written vmRow
	err = s.write(ctx, func(tx querier) (err error) {
		written, err = reserve(ctx, tx, vm, prefix)
		return err
	})
	if err != nil {
		return banger.VM{}, fail(err, "cannot create VM %s", vm.Name)
	}
	return written.vm(), nil
}

// ReserveVMs is ReserveVM for several VMs at once, for all or for none, and
// writes their workspaces too.
func (s *Store) ReserveVMs(ctx context.Context, vms []banger.VM, network string) ([]banger.VM, error) {
	prefix, err := ParseNetwork(network)
	if err != nil {
		return nil, fail(err, "cannot create VMs")
	}
	var all []banger.VM
	err = s.write(ctx, func(tx querier) error {
		for _, vm := range vms {
			row, err := reserve(ctx, tx, vm, prefix)
			if err == nil && !vm.Workspace.IsZero() {
				err = setWorkspace(ctx, tx, &row, vm.Workspace)
			}
			if err != nil {
				return err
			}
			all = append(all, row.vm())
		}
		return nil
	})
	if err != nil {
		return nil, fail(err, "cannot create %d VMs", len(vms))
	}
	return all, nil
}

func reserve(ctx context.Context, tx querier, vm banger.VM, network netip.Prefix) (written vmRow, err error) {
	if vm.GuestIP == "" {
		if vm.GuestIP, err = freeAddress(ctx, tx, network); err != nil {
			return written, err
		}
	}
	if err := insertVM(ctx, tx, vm); err != nil {
		return written, err
	}
	written, _, err = findVM(ctx, tx, "id", vm.ID)
	return written, err
}

func freeAddress(ctx context.Context, tx querier, network netip.Prefix) (string, error) {
	taken, err := takenNumbers(ctx, tx, network)
	if err != nil {
		return "", err
	}
	last := min(int(hostMask(network))-1, maxNumber)
	for n := firstNumber; n <= last; n++ {
		if !taken[n] {
			return numbered(network, n), nil
		}
	}
	return "", banger.Errorf(banger.Unavailable, "all %d addresses of %s are taken", last-firstNumber+1, network).
		Hint("banger vm prune removes the VMs that do not run").
		Hint("or set a wider network_prefix in config.toml")
}

// takenNumbers are the numbers in use. A VM of ours that has its address from
// a former network_prefix counts too, because its loopback address follows
// from the number alone; a row of another tool, which cannot be started, does
// not.
func takenNumbers(ctx context.Context, tx querier, network netip.Prefix) (map[int]bool, error) {
	rows, err := tx.QueryContext(ctx, "SELECT coalesce(guest_ip, ''), coalesce(spec_json, '') FROM vms")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	taken := map[int]bool{}
	for rows.Next() {
		var address, spec string
		if err := rows.Scan(&address, &spec); err != nil {
			return nil, err
		}
		n, ok := HostNumber(network, address)
		if ok && (network.Contains(netip.MustParseAddr(address)) || layout(spec) > 0) {
			taken[n] = true
		}
	}
	return taken, rows.Err()
}

// layout is the spec's Layout: 0 for another tool's row.
func layout(text string) int {
	var spec banger.Spec
	decode(text, &spec)
	return spec.Layout
}
