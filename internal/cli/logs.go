package cli

import (
	"context"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"banger/client"
	"banger/internal/paths"
	"banger/internal/shim"
)

type logsOptions struct {
	app    *app
	ref    string
	follow bool
	source string
	tail   int
}

// logSources are the logs that a VM has.
var logSources = []string{"console", "shim", "bootstrap"}

func newLogs(a *app) *cobra.Command {
	o := &logsOptions{app: a}
	cmd := &cobra.Command{
		Use:   "logs <vm>",
		Short: "Print the console log of a VM",
		Example: `  banger logs devbox
  banger logs -f --tail 20 devbox
  banger logs --source shim devbox`,
		Args:              exactly("VM"),
		ValidArgsFunction: a.completeVMs(one, anyState),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.tail < -1 {
				return badUsage("bad --tail %d: it is negative", o.tail)
			}
			if !slices.Contains(logSources, o.source) {
				return badUsage("bad --source %q: it must be console, shim or bootstrap", o.source)
			}
			o.ref = args[0]
			return a.with(cmd, o.run)
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&o.follow, "follow", "f", false, "go on printing until the VM ends, or Ctrl-C")
	flags.StringVar(&o.source, "source", "console", "print the log of `SOURCE`: console, shim or bootstrap (the installation of a repository's tools)")
	flags.IntVar(&o.tail, "tail", -1, "print the last `N` lines only")
	a.completeFlag(cmd, "source", logSources...)
	return cmd
}

func (o *logsOptions) run(ctx context.Context, c *client.Client) error {
	vm, err := c.VM(ctx, o.ref)
	if err != nil {
		return err
	}
	if o.source == "bootstrap" {
		vm, sh, err := o.app.reach(ctx, c, vm.ID)
		if err != nil {
			return err
		}
		defer sh.Close()
		return o.printBootstrap(ctx, vm, sh)
	}
	log, err := o.log(paths.VM(vm.Dir))
	if err != nil {
		return err
	}
	defer log.close()
	out := o.app.guestOut(flushing{o.app.voice})
	if err := log.history(out, o.tail); err != nil || !o.follow {
		return err
	}
	return o.followUntilEnd(ctx, paths.VM(vm.Dir), log, out)
}

func (o *logsOptions) log(dir paths.VM) (*logFile, error) {
	if o.source == "shim" {
		return openLog(dir.ShimLog())
	}
	return openLog(dir.Console())
}

// followUntilEnd prints what is added until the VM has ended and all of it
// was printed.
func (o *logsOptions) followUntilEnd(ctx context.Context, dir paths.VM, log *logFile, out io.Writer) error {
	ended := make(chan struct{})
	ctx, stop := context.WithCancelCause(ctx)
	defer func() { stop(nil); <-ended }()
	go func() {
		defer close(ended)
		sh, err := shim.Dial(ctx, dir)
		if err != nil {
			return // it does not run
		}
		defer sh.Close()
		_ = sh.Watch(ctx, func(shim.Status) {})
	}()
	for {
		if err := log.wait(ctx, ended); err != nil {
			return context.Cause(ctx)
		}
		over := isOver(ended)
		if err := log.copyTo(out); err != nil || over {
			return err
		}
	}
}

func isOver(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// flushing writes data through at once.
type flushing struct{ v *voice }

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.v.Out.Write(p)
	if err == nil {
		err = f.v.flush()
	}
	return n, err
}
