// Package standin stands in for Firecracker where there is none: a program that has
// Firecracker's API, holds every call against a description of it that was written here from
// its documentation, and runs a guest that is a few goroutines in its process. A test
// sees each call, and can have it refused, held up or left without an answer.
//
// It shows that a driver keeps to the API as it is described, and what becomes of a machine
// where a call fails. It shows nothing of KVM, of kernels and of devices: whether the
// description is Firecracker's own, the real one tells where there is one.
//
// It knows nothing of the driver, and only tests import it.
package standin

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
)

// Program is what the program must be called for Called to know it, and Version what it says it is.
const (
	Program = "firecracker"
	Version = "1.16.1"
)

// control is the socket beside the program on which a test hears of calls.
const control = "control"

// Called says that this process was begun as the stand-in, by a link to it.
func Called() bool { return filepath.Base(os.Args[0]) == Program }

// Main is the stand-in. The result is the status to exit with.
func Main() int {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Printf("Firecracker v%s\n", Version)
		return 0
	}
	o, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 153
	}
	if err := run(o); err != nil {
		fmt.Fprintf(os.Stderr, "2026-01-01T00:00:00.000000000 [%s:main] %v\n", o.id, err)
		return 1
	}
	return 0
}

// options are the command line.
type options struct{ socket, id, log string }

// longestSocket is what a socket's name has room for.
const longestSocket = 107

func parse(args []string) (o options, err error) {
	set := flag.NewFlagSet(Program, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVar(&o.socket, "api-sock", "/run/firecracker.socket", "")
	set.StringVar(&o.id, "id", "anonymous-instance", "")
	set.StringVar(&o.log, "log-path", "", "")
	level := set.String("level", "Info", "")
	if err := set.Parse(args); err != nil {
		return o, err
	}
	switch {
	case set.NArg() > 0:
		return o, fmt.Errorf("unknown argument %q", set.Arg(0))
	case len(o.socket) > longestSocket:
		return o, fmt.Errorf("the name of the socket is too long: %s", o.socket)
	case !regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`).MatchString(o.id):
		return o, fmt.Errorf("bad id %q", o.id)
	}
	return o, oneOf("Off", "Trace", "Debug", "Info", "Warn", "Error").check(*level)
}

// run serves the API until the machine ends.
func run(o options) error {
	if o.log != "" {
		log, err := os.OpenFile(o.log, os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("cannot open the log: %w", err)
		}
		log.Close()
	}
	watch, err := dial(filepath.Join(filepath.Dir(os.Args[0]), control))
	if err != nil {
		return fmt.Errorf("cannot reach the test: %w", err)
	}
	// Whoever watches may end, and with it this process.
	m := &machine{ended: make(chan error, 1)}
	go func() { m.ended <- serve(o.socket, m, watch) }()
	err = <-m.ended
	if errors.Is(err, errReset) {
		return nil
	}
	return err
}
