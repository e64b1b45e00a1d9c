// Package doctor looks at a host and at banger's own files and says what is
// right, what is odd and what is broken, with a remedy each.
//
// It has no side effects: it starts no daemon, writes nothing, and reads a
// private copy of the database. It knows nothing of terminals.
package doctor

import (
	"context"
	"fmt"
	"time"

	"banger/internal/config"
	"banger/internal/paths"
)

// Verdict is what a row comes to.
type Verdict string

// The verdicts.
const (
	Pass Verdict = "PASS"
	Warn Verdict = "WARN"
	Fail Verdict = "FAIL"
)

// Row is the result of one check.
type Row struct {
	Name     string   `json:"name"`
	Verdict  Verdict  `json:"verdict"`
	Detail   string   `json:"detail"`
	Remedies []string `json:"remedies,omitempty"`
	Fix      *Fix     `json:"fix,omitempty"` // what --fix would do
}

// Failed says whether any row does.
func Failed(rows []Row) bool {
	for _, r := range rows {
		if r.Verdict == Fail {
			return true
		}
	}
	return false
}

// Options says how to look.
type Options struct {
	Verify bool                          // read all that has a digest, which takes a while
	Daemon func(context.Context) *Daemon // asks the daemon that runs; nil where none does
	Stage  func(string)                  // hears what takes a while
	Self   string                        // this program, to try what it does; nothing is tried with an empty one
	Pause  time.Duration                 // between looks at what changes; 0 is the default
}

// Daemon is what the running daemon says of itself.
type Daemon struct {
	Version string
	Build   string
	Busy    []string // operations under way
}

// exam is one run of all checks, and what they tell each other.
type exam struct {
	Options
	dirs   paths.Dirs
	host   host
	config config.Config
	rows   []Row
	qemu   string // its executable, once found
	kernel string // the default kernel's vmlinux, once found
}

// Check runs all checks. It takes up to a minute where KVM was never tried.
func Check(ctx context.Context, dirs paths.Dirs, o Options) []Row {
	e := &exam{Options: o, dirs: dirs, host: thisHost()}
	for _, check := range []func(context.Context){
		e.versions, e.architecture, e.configuration, e.vmm, e.firecracker, e.kernels, e.images, e.acceleration, e.confinement,
		e.tools, e.session, e.sshShortcut, e.names,
		e.home, e.fileSystem, e.space, e.directories, e.database, e.defaults, e.world, e.verify,
	} {
		check(ctx)
	}
	return e.rows
}

func (e *exam) add(name string, v Verdict, detail string, remedies ...string) {
	e.rows = append(e.rows, Row{Name: name, Verdict: v, Detail: detail, Remedies: remedies})
}

// repair adds a row that can be put right.
func (e *exam) repair(name string, v Verdict, detail string, fix *Fix, remedies ...string) {
	e.rows = append(e.rows, Row{Name: name, Verdict: v, Detail: detail, Remedies: remedies, Fix: fix})
}

func (e *exam) pass(name, format string, args ...any) {
	e.add(name, Pass, fmt.Sprintf(format, args...))
}

// stage tells what begins.
func (e *exam) stage(format string, args ...any) {
	if e.Stage != nil {
		e.Stage(fmt.Sprintf(format, args...))
	}
}

// daemon asks the one that runs.
func (e *exam) daemon(ctx context.Context) *Daemon {
	if e.Daemon == nil {
		return nil
	}
	return e.Daemon(ctx)
}
