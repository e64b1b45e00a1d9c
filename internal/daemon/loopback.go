package daemon

import (
	"context"
	"os"
	"sync"
	"time"

	"banger/internal/loopback"
)

// prefixes holds the loopback prefix of this daemon's VMs.
type prefixes struct {
	stateDir string

	mu        sync.Mutex
	preferred string // what prefix was claimed for
	prefix    loopback.Prefix
	owner     loopback.Owner
	held      *os.File
}

// claimTime bounds the wait for other daemons that look for theirs.
const claimTime = 5 * time.Second

// Prefix implements vm.Loopback. What was claimed is kept until something else is
// preferred.
func (p *prefixes) Prefix(ctx context.Context, preferred string) (loopback.Prefix, loopback.Owner, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held != nil && p.preferred == preferred {
		return p.prefix, p.owner, nil
	}
	want, err := loopback.Parse(preferred)
	if err != nil {
		return loopback.Prefix{}, "", err
	}
	owner, err := loopback.OwnerOf(p.stateDir)
	if err != nil {
		return loopback.Prefix{}, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, claimTime)
	defer cancel()
	p.drop() // or what we hold ourselves would be in our way
	prefix, held, err := loopback.Usual.Claim(ctx, owner, want)
	if err != nil {
		return loopback.Prefix{}, "", err
	}
	p.preferred, p.prefix, p.owner, p.held = preferred, prefix, owner, held
	return prefix, owner, nil
}

func (p *prefixes) drop() {
	if p.held != nil {
		_ = p.held.Close()
		p.held = nil
	}
}

// Close gives the prefix up. Shims that run keep theirs.
func (p *prefixes) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop()
}
