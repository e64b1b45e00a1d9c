package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"banger"
	"banger/internal/shim"
	"banger/internal/store"
)

// The world check accounts for every row, directory, process and socket of VMs:
// what is extra is an orphan, what is missing is damage. VMs come and go while it
// looks, so it looks again, and reports what it saw each time.
const (
	looks       = 5
	defaultWait = 300 * time.Millisecond
)

// finding is something that is not as it should be.
type finding struct {
	Row
	passing bool // is ordinary while the daemon is at work on something
}

func (e *exam) world(ctx context.Context) {
	var seen []finding
	var s sight
	for look := range looks {
		if look > 0 && !e.wait(ctx) {
			return
		}
		s = e.look(ctx)
		found := s.findings()
		if look > 0 {
			found = slices.DeleteFunc(found, func(f finding) bool { return !contains(seen, f) })
		}
		if seen = found; len(seen) == 0 {
			break
		}
	}
	for _, f := range seen {
		e.rows = append(e.rows, f.Row)
	}
	if len(seen) == 0 && s.readable {
		e.pass("world", "%s", s)
	}
}

// contains says whether all has the same finding.
func contains(all []finding, f finding) bool {
	return slices.ContainsFunc(all, func(o finding) bool { return o.Detail == f.Detail })
}

func (e *exam) wait(ctx context.Context) bool {
	pause := e.Pause
	if pause == 0 {
		pause = defaultWait
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pause):
		return true
	}
}

// sight is what one look saw.
type sight struct {
	exam      *exam
	rows      map[string]banger.VM
	images    map[string]banger.Image
	readable  bool     // the rows could be read
	names     []string // in the directory of VMs
	trash     []string
	residents []shim.Resident
	daemon    *Daemon
	failed    error // why something could not be seen
}

// look sees the processes first and the rows last: what is made begins with its
// row, and what is deleted ends with it.
func (e *exam) look(ctx context.Context) sight {
	s := sight{exam: e, rows: map[string]banger.VM{}, images: map[string]banger.Image{}, daemon: e.daemon(ctx)}
	var errs [4]error
	s.residents, errs[0] = shim.Residents(e.dirs.VMs())
	s.names, errs[1] = namesIn(e.dirs.VMs())
	s.trash, errs[2] = namesIn(e.dirs.VMTrash())
	i, err := store.Inspect(ctx, e.dirs.Database())
	errs[3] = err
	s.readable = err == nil && slices.Contains([]store.Status{store.StatusMissing, store.StatusCurrent, store.StatusOlder}, i.Status)
	for _, row := range i.VMs {
		s.rows[row.ID] = row
	}
	for _, image := range i.Images {
		s.images[image.ID] = image
	}
	s.failed = errors.Join(errs[:]...)
	return s
}

// namesIn lists a directory; one that is not there is empty.
func namesIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names, err
}

// findings judges what was seen.
func (s sight) findings() (all []finding) {
	add := func(more ...finding) { all = append(all, more...) }
	if s.failed != nil {
		add(finding{Row: Row{Verdict: Warn, Detail: "not all can be seen: " + s.failed.Error()}})
	}
	for _, name := range s.names {
		add(s.entry(name)...)
	}
	for _, name := range s.trash {
		add(s.trashed(name)...)
	}
	if s.readable {
		for _, row := range s.rows {
			add(s.row(row)...)
		}
	}
	for _, r := range s.residents {
		add(s.resident(r)...)
	}
	add(s.leftovers()...)
	if s.daemon != nil && len(s.daemon.Busy) > 0 {
		all = slices.DeleteFunc(all, func(f finding) bool { return f.passing })
	}
	for i := range all {
		if all[i].Name == "" {
			all[i].Name = "world"
		}
	}
	slices.SortStableFunc(all, func(a, b finding) int {
		return slices.Index(verdicts, b.Verdict) - slices.Index(verdicts, a.Verdict)
	})
	return all
}

var verdicts = []Verdict{Pass, Warn, Fail}

// String sums up a world in which all is accounted for.
func (s sight) String() string {
	shims, vmms, foreign := 0, 0, 0
	for _, r := range s.residents {
		switch {
		case r.Shim:
			shims++
		case s.ofShim(r):
			vmms++
		}
	}
	for _, row := range s.rows {
		if row.Spec.Layout == 0 {
			foreign++
		}
	}
	text := fmt.Sprintf("%d VMs, %d shims and %d VMMs, all accounted for", len(s.rows)-foreign, shims, vmms)
	if foreign > 0 {
		text += fmt.Sprintf("; %d rows of another tool", foreign)
	}
	if s.daemon != nil && len(s.daemon.Busy) > 0 {
		text += fmt.Sprintf("; %d operations under way", len(s.daemon.Busy))
	}
	return text
}

// orphan is what nobody leads to any more, and the next start of the daemon
// removes or finishes.
func orphan(format string, args ...any) finding {
	return finding{Row{
		Verdict: Warn, Detail: "orphan: " + fmt.Sprintf(format, args...),
		Remedies: []string{"banger doctor --fix"}, Fix: restart(),
	}, true}
}

// damage is what is missing.
func damage(fix *Fix, format string, args ...any) finding {
	f := finding{Row: Row{Verdict: Fail, Detail: "damage: " + fmt.Sprintf(format, args...), Fix: fix}}
	if fix != nil {
		f.Remedies = []string{"banger doctor --fix"}
	}
	return f
}

// stranger is what is not banger's, and is left alone.
func stranger(format string, args ...any) finding {
	return finding{Row: Row{Verdict: Warn, Detail: "not banger's, and left alone: " + fmt.Sprintf(format, args...)}}
}

func (f finding) remedy(format string, args ...any) finding {
	f.Remedies = append(f.Remedies, fmt.Sprintf(format, args...))
	return f
}

// exists says whether there is something at path.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// short is a path below the state directory, for people.
func (s sight) short(path string) string {
	if rel, err := filepath.Rel(s.exam.dirs.State, path); err == nil && filepath.IsLocal(rel) {
		return rel
	}
	return path
}
