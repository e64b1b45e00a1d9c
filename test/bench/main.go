// Package main is the benchmark behind `make bench`: what a user waits for and
// what an idle VM costs, each beside a floor measured in the same run on the
// same files without banger's daemon, shim and CLI.
//
// Walls differ from machine to machine and hour to hour; ratios less so.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"banger/internal/vmm/firecracker"
	"banger/test/world"
)

// options are what is measured, and how.
type options struct {
	only string // lines
	vmm  string // of the VMs
	tap  string // for a card by hand
	n    int    // how often each thing is done; 0 for as often as each line says
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == firecracker.CardProgram {
		becomeFirecracker(os.Args[2:])
	}
	var o options
	flag.StringVar(&o.only, "only", "", "measure only these `LINES`, as in exec,list: "+strings.Join(lineNames(), " "))
	flag.StringVar(&o.vmm, "vmm", "auto", "measure VMs on this `VMM`: auto, qemu or firecracker")
	flag.StringVar(&o.tap, "tap", "", "give a Firecracker by hand this `TAP`, which this user may open, as its card (default: no card)")
	flag.IntVar(&o.n, "n", 0, "do each thing `N` times (default: as often as each line says)")
	flag.Parse()
	// Whoever is interrupted leaves no VM.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := measure(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// becomeFirecracker is what the floor's Firecracker begins as: see the driver.
func becomeFirecracker(args []string) {
	if err := firecracker.Card(args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// line is a figure or a few that are measured together.
type line struct {
	name    string
	measure func(*benchmark) error
}

var lines = []line{
	{"cold", (*benchmark).coldRun},
	{"warm", (*benchmark).warmRun},
	{"coldhand", (*benchmark).coldByHand},
	{"warmhand", (*benchmark).warmByHand},
	{"cpu", (*benchmark).ownCPU},
	{"exec", (*benchmark).exec},
	{"standing", (*benchmark).standing},
	{"stop", (*benchmark).stop},
	{"fork", (*benchmark).fork},
	{"fork8", (*benchmark).forkEight},
	{"forty", (*benchmark).forty},
	{"idle", (*benchmark).idle},
	{"memory", (*benchmark).memory},
	{"list", (*benchmark).list},
	{"export", (*benchmark).export},
	{"prepare", (*benchmark).prepare200},
	{"workspace", (*benchmark).workspace},
	{"network", (*benchmark).network},
	{"flood", (*benchmark).flood},
	{"pull", (*benchmark).pull},
}

func lineNames() (names []string) {
	for _, l := range lines {
		names = append(names, l.name)
	}
	return names
}

// chosen is the lines of a list of names, all of them for an empty one. They keep their order,
// in which one leaves nothing that is in the way of the next.
func chosen(only string) ([]line, error) {
	if only == "" {
		return lines, nil
	}
	names := strings.Split(only, ",")
	for _, name := range names {
		if !slices.Contains(lineNames(), name) {
			return nil, fmt.Errorf("there is no line %q, but %s", name, strings.Join(lineNames(), " "))
		}
	}
	left := func(l line) bool { return !slices.Contains(names, l.name) }
	return slices.DeleteFunc(slices.Clone(lines), left), nil
}

func measure(ctx context.Context, o options) (err error) {
	measured, err := chosen(o.only)
	if err != nil {
		return err
	}
	w, err := world.OpenShared(".", "bench")
	if err != nil {
		return err
	}
	defer w.Close()
	if err := useVMM(w, o.vmm); err != nil {
		return err
	}
	b := &benchmark{ctx: ctx, w: w, n: o.n, tap: o.tap}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.prepare(); err != nil {
		return err
	}
	fmt.Printf("%s; %s; medians of n; floor: the same machine without daemon, shim and CLI\n", strings.TrimSpace(w.Banger("version").Stdout), b.machine)
	heading()
	for _, l := range measured {
		if err := l.measure(b); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	return nil
}
