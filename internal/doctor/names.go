package doctor

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/loopback"
	"banger/internal/names"
)

// nameTime bounds one question.
const nameTime = time.Second

// names looks who answers for names under .vm, and whether this host asks
// there.
func (e *exam) names(ctx context.Context) {
	owner, err := loopback.OwnerOf(e.dirs.State)
	if err != nil {
		e.pass("names", "nobody has asked for a VM yet")
		return
	}
	at := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, e.host.dns)
	}}
	switch whose, err := askWhose(ctx, at); {
	case errors.Is(err, unix.ECONNREFUSED):
		e.pass("names", "no daemon runs that would answer at %s", e.host.dns)
	case err != nil:
		e.add("names", Warn, e.host.dns+" is taken by another program: names under .vm do not resolve", "banger vm ports VM has the addresses")
	case whose != string(owner):
		e.add("names", Warn, "another daemon answers at "+e.host.dns+": its VMs have names under .vm, and those of this one do not", "banger vm ports VM has the addresses")
	default:
		e.route(ctx, whose)
	}
}

func (e *exam) route(ctx context.Context, owner string) {
	if whose, err := askWhose(ctx, net.DefaultResolver); err == nil && whose == owner {
		e.pass("names", "NAME.vm resolves on this host")
		return
	}
	e.pass("names", "NAME.vm resolves at %s alone; banger dns says how to have this host ask there", e.host.dns)
}

func askWhose(ctx context.Context, r *net.Resolver) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, nameTime)
	defer cancel()
	texts, err := r.LookupTXT(ctx, names.Whose)
	if err != nil && strings.Contains(err.Error(), unix.ECONNREFUSED.Error()) {
		return "", unix.ECONNREFUSED // which the resolver keeps to itself
	}
	return strings.Join(slices.Sorted(slices.Values(texts)), ""), err
}
