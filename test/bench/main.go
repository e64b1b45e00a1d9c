// Package main is the benchmark behind `make bench`: what a user waits for and
// what an idle VM costs, each beside a floor measured in the same run on the
// same files without banger's daemon, shim and CLI.
//
// Walls differ from machine to machine and hour to hour; ratios less so.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"banger/internal/bench"
	"banger/internal/paths"
	"banger/test/world"
)

const (
	runs     = 10 // of slow figures; medians are printed
	quickFor = 30 // runs of quick ones
)

func main() {
	only := flag.String("only", "", "measure only these `LINES`, as in exec,list: "+strings.Join(lineNames(), " "))
	flag.Parse()
	if err := measure(*only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// line is a figure or a few that are measured together.
type line struct {
	name    string
	measure func(*benchmark) error
}

var lines = []line{
	{"cold", (*benchmark).coldRun},
	{"warm", (*benchmark).warmRun},
	{"exec", (*benchmark).exec},
	{"standing", (*benchmark).standing},
	{"stop", (*benchmark).stop},
	{"idle", (*benchmark).idle},
	{"memory", (*benchmark).memory},
	{"list", (*benchmark).list},
}

func lineNames() (names []string) {
	for _, l := range lines {
		names = append(names, l.name)
	}
	return names
}

// chosen is the lines of a list of names, all of them for an empty one.
func chosen(only string) ([]line, error) {
	if only == "" {
		return lines, nil
	}
	var some []line
	for _, name := range strings.Split(only, ",") {
		i := slices.Index(lineNames(), name)
		if i < 0 {
			return nil, fmt.Errorf("there is no line %q, but %s", name, strings.Join(lineNames(), " "))
		}
		some = append(some, lines[i])
	}
	return some, nil
}

func measure(only string) error {
	measured, err := chosen(only)
	if err != nil {
		return err
	}
	w, err := world.OpenShared(".", "bench")
	if err != nil {
		return err
	}
	defer w.Close()
	b := &benchmark{w: w}
	if err := b.prepare(); err != nil {
		return err
	}
	for _, l := range measured {
		if err := l.measure(b); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	return b.tearDown()
}

// benchmark is one run over one installation.
type benchmark struct {
	w     *world.World
	floor *bench.Floor
	vm    running
}

// row prints one figure: what, the bound, the figure, its floor and the ratio.
func row(what, bound, figure, floor, ratio string) {
	fmt.Printf("%-46s %10s %12s %12s %8s\n", what, bound, figure, floor, ratio)
}

func timeRow(what string, bound time.Duration, figures, floors []time.Duration) {
	f, fl := median(figures), median(floors)
	ratio := "-"
	if fl > 0 {
		ratio = fmt.Sprintf("%.2f", float64(f)/float64(fl))
	}
	row(what, ms(bound), ms(f), ms(fl), ratio)
}

func ms(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
}

func median(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[len(d)/2]
}

// timed runs f n times.
func timed(n int, f func() error) ([]time.Duration, error) {
	var all []time.Duration
	for range n {
		began := time.Now()
		if err := f(); err != nil {
			return nil, err
		}
		all = append(all, time.Since(began))
	}
	return all, nil
}

// command is a figure: a banger command that has to succeed.
func (b *benchmark) command(args ...string) func() error {
	return func() error {
		if r := b.w.Banger(args...); r.Status != 0 {
			return fmt.Errorf("banger %v: status %d: %s", args, r.Status, r.Stderr)
		}
		return nil
	}
}

func (b *benchmark) prepare() error {
	if err := b.command("vm", "create", "--name", "bench")(); err != nil {
		return err
	}
	if err := b.command("exec", "bench", "--", "true")(); err != nil {
		return err
	}
	vm, err := look(b.w, "bench")
	if err != nil {
		return err
	}
	b.vm = vm
	b.floor, err = bench.OpenFloor(context.Background(), paths.VM(vm.Dir))
	fmt.Printf("%s; medians of %d (exec, list: %d); floor: the same machine without daemon, shim and CLI\n", strings.TrimSpace(b.w.Banger("version").Stdout), runs, quickFor)
	row("figure", "at most", "banger", "floor", "ratio")
	return err
}

func (b *benchmark) tearDown() error { return b.floor.Close() }

func (b *benchmark) coldRun() error {
	floors, err := timed(runs, b.floor.BootAndExec)
	if err != nil {
		return err
	}
	figures, err := timed(runs, b.command("run", "--rm", "--cold", "--", "true"))
	if err != nil {
		return err
	}
	timeRow("cold vm run --rm --cold -- true", 4*time.Second, figures, floors)
	return nil
}

func (b *benchmark) stop() error {
	var figures, floors []time.Duration
	for range runs {
		if err := b.floor.Boot(); err != nil {
			return err
		}
		one, err := timed(1, b.floor.Shutdown)
		if err != nil {
			return err
		}
		floors = append(floors, one...)
	}
	if err := b.command("vm", "create", "--name", "bench-stop")(); err != nil {
		return err
	}
	for range runs {
		if err := b.command("exec", "bench-stop", "--", "true")(); err != nil {
			return err
		}
		one, err := timed(1, b.command("stop", "bench-stop"))
		if err != nil {
			return err
		}
		figures = append(figures, one...)
		if err := b.command("start", "bench-stop")(); err != nil {
			return err
		}
	}
	timeRow("vm stop of an idle VM", 2*time.Second, figures, floors)
	return b.command("rm", "-f", "bench-stop")()
}

func (b *benchmark) list() error {
	versions, err := timed(quickFor, b.command("version"))
	if err != nil {
		return err
	}
	rows, err := manyRows(b.w)
	if err != nil {
		return err
	}
	defer rows.Close()
	many := &benchmark{w: rows}
	figures, err := timed(quickFor, many.command("ps", "-a"))
	if err != nil {
		return err
	}
	timeRow("ps -a with 1,000 rows (floor: version)", 60*time.Millisecond, figures, versions)
	return nil
}
