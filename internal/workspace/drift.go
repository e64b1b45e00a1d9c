package workspace

import (
	"context"
	"path"
	"slices"

	"banger"
)

// Drift is how both sides differ from what was brought in.
type Drift struct {
	Here      []Drifted `json:"here"`       // would go in
	There     []Drifted `json:"there"`      // would come out
	Head      string    `json:"head"`       // the host's commit
	GuestHead string    `json:"guest_head"` // the guest's
}

// Drifted is a path that differs, as "M", "A" or "D".
type Drifted struct {
	Kind string `json:"kind"`
	Path string `json:"path"`
}

// Compare looks at both sides and changes neither. Of submodules it sees the
// commits alone.
func (c *Cargo) Compare(ctx context.Context, to Target) (d Drift, err error) {
	there, err := to.look(ctx)
	if err != nil {
		return d, err
	}
	if !there.whole || !there.git {
		return d, banger.Errorf(banger.NotFound, "cannot compare with %s: there is no git repository in the guest", to.Path)
	}
	p := c.parts[len(c.parts)-1]
	r := &renewal{
		delivery: &delivery{cargo: c, to: to}, part: p,
		work: to.Path, gitDir: path.Join(to.Path, p.gitDir),
	}
	if err := r.probe(ctx); err != nil {
		return d, err
	}
	d = Drift{Here: r.here(), There: []Drifted{}, Head: c.main.head, GuestHead: r.guest.head}
	out, err := r.inBase(ctx, "", "git", "ls-files", "-z", "-t", "--modified", "--deleted", "--others", "--exclude-standard")
	tags := parseTagged(split([]byte(out)))
	for _, p := range sortedKeys(tags) {
		d.There = append(d.There, Drifted{map[string]string{"R": "D", "C": "M", "?": "A"}[tags[p]], p})
	}
	return d, err
}

// here lists what the host has changed.
func (r *renewal) here() []Drifted {
	list := []Drifted{}
	for _, e := range r.changed {
		kind := "A"
		if _, was := r.old[e.path]; was {
			kind = "M"
		}
		list = append(list, Drifted{kind, e.path})
	}
	for _, p := range r.removed {
		list = append(list, Drifted{"D", p})
	}
	slices.SortFunc(list, func(a, b Drifted) int {
		if a.Path < b.Path {
			return -1
		}
		return 1
	})
	return list
}
