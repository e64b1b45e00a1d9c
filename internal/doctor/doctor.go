// Package doctor looks at a host and at banger's own files and says what is
// right, what is odd and what is broken, with a remedy each.
//
// It has no side effects: it starts no daemon, writes nothing, and reads a
// private copy of the database. It knows nothing of terminals.
package doctor

import (
	"context"
	"fmt"

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

// exam is one run of all checks, and what they tell each other.
type exam struct {
	dirs   paths.Dirs
	host   host
	config config.Config
	rows   []Row
	qemu   string // its executable, once found
	kernel string // the default kernel's vmlinux, once found
}

// Check runs all checks. It takes up to a minute where KVM was never tried.
func Check(ctx context.Context, dirs paths.Dirs) []Row {
	e := &exam{dirs: dirs, host: thisHost()}
	for _, check := range []func(context.Context){
		e.architecture, e.configuration, e.vmm, e.kernels, e.images, e.acceleration, e.tools,
		e.database, e.directories, e.home, e.fileSystem, e.space, e.defaults,
	} {
		check(ctx)
	}
	return e.rows
}

func (e *exam) add(name string, v Verdict, detail string, remedies ...string) {
	e.rows = append(e.rows, Row{Name: name, Verdict: v, Detail: detail, Remedies: remedies})
}

func (e *exam) pass(name, format string, args ...any) {
	e.add(name, Pass, fmt.Sprintf(format, args...))
}
