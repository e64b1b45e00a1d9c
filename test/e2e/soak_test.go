package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// soakRuns is how many runs in a row are tried: as many as make soak-run
// says, else a few.
func soakRuns(t *testing.T, name string, few int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return few
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("bad %s %q", name, text)
	}
	return n
}

func TestSoakRuns(t *testing.T) {
	w := readyWorld(t, "soak-runs")
	w.soak(t, soakRuns(t, "BANGER_SOAK_RUNS", 5), "run", "--rm", "--memory", "512", "--", "true")
}

func TestSoakForks(t *testing.T) {
	w := readyWorld(t, "soak-forks")
	w.start(t, "p")
	w.soak(t, soakRuns(t, "BANGER_SOAK_FORKS", 3), "vm", "fork", "--rm", "p", "--", "true")
}

// soak runs a command again and again. Each time it has to succeed, and in the
// end there is what there was after the first time: processes, files, rows, and
// descriptors of the daemon.
func (w home) soak(t *testing.T, runs int, args ...string) {
	t.Helper()
	w.must(t, args...)
	daemon := w.daemonPID(t)
	before := w.everything(t, daemon)
	memory := resident(t, daemon)
	var took []time.Duration
	failures := 0
	for n := range runs {
		began := time.Now()
		if r := w.Banger(args...); r.Status != 0 {
			t.Errorf("run %d: status %d\n%s%s", n+1, r.Status, r.Stdout, r.Stderr)
			if failures++; failures == 5 {
				t.Fatal("too many failures")
			}
			continue
		}
		took = append(took, time.Since(began))
	}
	var after []string
	defer func() {
		if t.Failed() {
			t.Logf("new: %q\ngone: %q", without(after, before), without(before, after))
		}
	}()
	// The daemon frees the files of a deleted VM a moment after its answer: what
	// was there may have gone meanwhile.
	eventually(t, "nothing is left that was not there", func() bool {
		after = w.everything(t, daemon)
		return len(without(after, before)) == 0
	})
	if is := w.daemonPID(t); is != daemon {
		t.Errorf("the daemon is %d and was %d", is, daemon)
	}
	grown := resident(t, daemon) - memory
	if grown > 16<<10 {
		t.Errorf("the daemon has %d KiB more in memory", grown)
	}
	slices.Sort(took)
	t.Logf("%s: %d of %d; min %v, median %v, p99 %v, max %v; daemon: %d descriptors, %d KiB and %+d resident",
		strings.Join(args, " "), len(took), runs, took[0], took[len(took)/2], took[len(took)*99/100], took[len(took)-1],
		len(descriptors(t, daemon)), memory, grown)
}

// without is what a has more of than b.
func without(a, b []string) (more []string) {
	more = slices.Clone(a)
	for _, s := range b {
		if i := slices.Index(more, s); i >= 0 {
			more = slices.Delete(more, i, i+1)
		}
	}
	return more
}

// everything is all there is in this world when no command runs.
func (w home) everything(t *testing.T, daemon int) []string {
	t.Helper()
	rest := append(w.processes(), strings.Fields(w.must(t, "ps", "-a", "-q"))...)
	err := filepath.WalkDir(w.Home, func(path string, d fs.DirEntry, err error) error {
		if strings.HasPrefix(filepath.Base(path), "state.db") { // a journal comes and goes
			return nil
		}
		rest = append(rest, path)
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, d := range descriptors(t, daemon) {
		if !strings.Contains(d, "/state.db") { // connections come with need, up to a few
			rest = append(rest, d)
		}
	}
	slices.Sort(rest)
	return rest
}

// descriptors are those a process has open, by what they are of.
func descriptors(t *testing.T, pid int) (kinds []string) {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(links) == 0 {
		t.Fatalf("the descriptors of %d: %v %v", pid, links, err)
	}
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil {
			kind, _, _ := strings.Cut(to, ":[")
			kinds = append(kinds, "open: "+kind)
		}
	}
	slices.Sort(kinds)
	return kinds
}

// resident is how much memory a process has, in KiB.
func resident(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kib, _ := strconv.Atoi(strings.Fields(rest)[0])
	return kib
}
