package cli

import (
	"context"
	"sync"

	"banger/internal/api"
	"banger/internal/patch"
	"banger/internal/shim"
	"banger/internal/workspace"
)

// forkPoint is a workspace as it was when copies of its VM were made: what had
// become of its paths by then.
type forkPoint struct {
	taking workspace.Taking
	user   string                                // whose the workspace is
	list   func() (map[string]patch.File, error) // asks the first copy, once
}

func (r *forkRun) newForkPoint(ctx context.Context) *forkPoint {
	w := r.forks.VMs[0].Workspace
	p := &forkPoint{taking: workspace.Taking{Path: w.GuestPath, Base: w.BaseTree}, user: w.User}
	p.list = sync.OnceValues(func() (map[string]patch.File, error) {
		changes, err := workspace.List(ctx, guestRunner{r.shims[0], p.user}, p.taking)
		at := map[string]patch.File{}
		for _, c := range changes {
			at[c.Path] = c.New
		}
		return at, err
	})
	return p
}

// count says how many files of the workspace are not as they were.
func (p *forkPoint) count(ctx context.Context, sh *shim.Client) (n int, err error) {
	before, err := p.list()
	if err != nil {
		return 0, err
	}
	changes, err := workspace.List(ctx, guestRunner{sh, p.user}, p.taking)
	now := map[string]bool{}
	for _, c := range changes {
		now[c.Path] = true
		if was, changed := before[c.Path]; !changed || was != c.New {
			n++
		}
	}
	for path := range before {
		if !now[path] { // as it was brought in again
			n++
		}
	}
	return n, err
}

// counting begins to count the files that change in a copy, in its workspace where
// it has one, else on its disk from a moment after it was made to be itself. The
// copies are alike at first: it is enough that the command of the first one waits
// until it was looked at.
func (r *forkRun) counting(ctx context.Context, vm api.VM, sh *shim.Client) (count func() *int) {
	if vm.Workspace.BaseTree != "" {
		if sh == r.shims[0] {
			_, _ = r.point.list()
		}
		return func() *int { return known(r.point.count(ctx, sh)) }
	}
	since, err := sh.Guest().Changes(ctx, 0)
	if err != nil {
		return func() *int { return nil }
	}
	return func() *int {
		changed, err := sh.Guest().Changes(ctx, since.TimeNanos)
		return known(changed.Files, err)
	}
}

func known(n int, err error) *int {
	if err != nil {
		return nil
	}
	return &n
}
