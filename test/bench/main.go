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

	"banger/test/world"
)

func main() {
	only := flag.String("only", "", "measure only these `LINES`, as in exec,list: "+strings.Join(lineNames(), " "))
	flag.Parse()
	// Whoever is interrupted leaves no VM.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := measure(ctx, *only); err != nil {
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
	{"fork", (*benchmark).fork},
	{"fork8", (*benchmark).forkEight},
	{"forty", (*benchmark).forty},
	{"idle", (*benchmark).idle},
	{"memory", (*benchmark).memory},
	{"list", (*benchmark).list},
	{"export", (*benchmark).export},
	{"workspace", (*benchmark).workspace},
	{"network", (*benchmark).network},
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

func measure(ctx context.Context, only string) (err error) {
	measured, err := chosen(only)
	if err != nil {
		return err
	}
	w, err := world.OpenShared(".", "bench")
	if err != nil {
		return err
	}
	defer w.Close()
	b := &benchmark{ctx: ctx, w: w}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.prepare(); err != nil {
		return err
	}
	fmt.Printf("%s; medians of n; floor: the same machine without daemon, shim and CLI\n", strings.TrimSpace(w.Banger("version").Stdout))
	heading()
	for _, l := range measured {
		if err := l.measure(b); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	return nil
}
