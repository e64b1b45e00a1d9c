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
	space    loopback.Space

	mu        sync.Mutex
	preferred string // what prefix was claimed for
	prefix    loopback.Prefix
	owner     loopback.Owner
	held      *os.File

	tried   string // what was preferred at the last try
	failure error  // of that
	retryAt time.Time
}

const (
	// claimTime bounds the wait for other daemons that look for theirs, which takes
	// them a moment. Starts wait for it.
	claimTime = 2 * time.Second
	// claimPause is how long a claim that failed is not tried again.
	claimPause = 30 * time.Second
)

// Prefix implements vm.Loopback. What was claimed is kept until something else is
// preferred, and to be had.
func (p *prefixes) Prefix(ctx context.Context, preferred string) (loopback.Prefix, loopback.Owner, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held != nil && p.preferred == preferred {
		return p.prefix, p.owner, nil
	}
	if p.tried != preferred || !time.Now().Before(p.retryAt) {
		p.tried, p.failure = preferred, p.claim(ctx, preferred)
		p.retryAt = time.Now().Add(claimPause)
	}
	if p.held == nil {
		return loopback.Prefix{}, "", p.failure
	}
	return p.prefix, p.owner, nil
}

// claim exchanges what is held for what is preferred. Where that fails it is kept.
func (p *prefixes) claim(ctx context.Context, preferred string) error {
	want, err := loopback.Parse(preferred)
	if err != nil {
		return err
	}
	owner, err := loopback.OwnerOf(p.stateDir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, claimTime)
	defer cancel()
	prefix, held, err := p.space.Claim(ctx, owner, want)
	if err != nil {
		return err
	}
	p.drop()
	p.preferred, p.prefix, p.owner, p.held = preferred, prefix, owner, held
	return nil
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
