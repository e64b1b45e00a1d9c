package daemon

import (
	"context"
	"net/netip"
	"time"

	"banger/internal/loopback"
	"banger/internal/names"
)

// namesRetry is how often a daemon tries to get the port of the DNS that another
// program has.
const namesRetry = 5 * time.Second

// answerNames answers for the names of VMs until ctx ends. Where the port is
// taken the daemon goes on without, and tries again.
func (d *daemon) answerNames(ctx context.Context, address string) {
	owner, err := loopback.OwnerOf(d.dirs.State)
	if err != nil {
		d.log.Error("cannot answer for names of VMs", "error", err)
		return
	}
	for warned := false; ; warned = true {
		s, err := names.Open(names.Config{Address: address, Owner: string(owner), Lookup: d.addressOf, Log: d.log})
		if err == nil {
			<-ctx.Done()
			s.Close()
			return
		}
		if !warned {
			d.log.Warn("names of VMs are not answered for", "error", err)
		}
		select {
		case <-time.After(namesRetry):
		case <-ctx.Done():
			return
		}
	}
}

// addressOf is the address on the host of the VM that runs under a name.
func (d *daemon) addressOf(ctx context.Context, name string) (netip.Addr, bool) {
	row, err := d.rows.VMByName(ctx, name)
	if err != nil {
		return netip.Addr{}, false
	}
	view, err := d.vms.Get(ctx, row.ID)
	if err != nil || !view.State.Live() {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(view.HostAddress)
	return a, err == nil
}
