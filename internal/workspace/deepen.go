package workspace

import (
	"context"
	"slices"
	"strings"
)

// deepen has a guest's history go where the host's does, if all of it was asked for:
// it finds where it would still end, and whether that is otherwise than now.
func (r *renewal) deepen(ctx context.Context) error {
	if r.cargo.plan.Mode != Full || r.guest.base == "" || len(r.guest.ends) == 0 {
		return nil
	}
	grafts, err := r.grafts()
	if err == nil {
		err = r.shallow(grafts) // else git looks for what is behind them
	}
	if err != nil {
		return r.cannotRead(err)
	}
	out, err := r.git.run(ctx, append([]string{"rev-list"}, r.tips()...)...)
	if err != nil {
		return r.cannotRead(err)
	}
	r.end(grafts, strings.Fields(string(out)))
	return nil
}

// end notes where the guest's history ends once it has some commits: where the host's
// does, and where the guest has cut what is its own.
func (r *renewal) end(grafts, sent []string) {
	given := map[string]bool{}
	for _, id := range sent {
		given[id] = true
	}
	for _, id := range r.guest.ends {
		switch {
		case !given[id]:
			r.ends = append(r.ends, id)
		case !slices.Contains(grafts, id):
			r.deeper = true
		}
	}
	r.ends = append(r.ends, grafts...)
}

// tips are the commits that the guest is to have with all behind them.
func (r *renewal) tips() []string {
	tips := []string{r.base}
	for _, id := range []string{r.head, r.guest.base} {
		if id != "" {
			tips = append(tips, id)
		}
	}
	return tips
}
