package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/api"
)

type forkOptions struct {
	app   *app
	ref   string
	argv  []string
	count int
	name  string
	rm    bool
	trace bool
	out   listFlags
}

func newFork(a *app) *cobra.Command {
	o := &forkOptions{app: a}
	cmd := &cobra.Command{
		Use:   "fork [flags] <vm> [-- <command> [args]...]",
		Short: "Copy a VM as it is now, once or several times",
		Long: `Make independent copies of a VM, called PREFIX-1 and so on. Copies of a VM that runs go on with its
processes alive; it stands still for a moment and runs on. Their names are printed.

With a command, it is run in every copy at once. What it writes is shown on stderr as it comes, each
line behind the copy's name, and at the end one table is printed: FILES is how many files changed in
the copy while the command ran, in its repository where one was brought in ("banger vm workspace
export" takes that out), else on its disk. Signals are forwarded to all; with --json the output of each is in its
result. banger exits with 0 where every command did, else with 1. --rm is for copies that run a command,
and there are at most 256 at a time.

A process that is forked alive keeps the state of its own random generator, and its connections to the
VM's address are dead.`,
		Example: `  banger fork devbox
  banger fork devbox -n 8 --name try
  banger fork devbox -n 4 --rm -- sh -c 'make test SEED=$(hostname)'`,
		Args:              func(cmd *cobra.Command, args []string) error { return o.arguments(cmd.ArgsLenAtDash(), args) },
		ValidArgsFunction: a.completeVMs(one, anyState),
		RunE:              func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },

		DisableFlagsInUseLine: true,
	}
	flags := cmd.Flags()
	flags.IntVarP(&o.count, "count", "n", 1, "make `N` copies")
	flags.StringVar(&o.name, "name", "", "call them `PREFIX`-1 and so on (default: the name of the VM)")
	flags.BoolVar(&o.rm, "rm", false, "delete them when their commands have ended, however they end")
	flags.BoolVar(&o.trace, "trace", false, "say afterwards where the time went")
	o.out.register(cmd, "ids")
	return cmd
}

// arguments splits the command line at "--".
func (o *forkOptions) arguments(dash int, args []string) error {
	switch {
	case len(args) == 0 || dash == 0:
		return badUsage("no VM is given").Hint("banger fork devbox -n 2")
	case dash < 0 && len(args) > 1:
		return badUsage("the command must follow --").Hint("banger fork %s -- %s", args[0], quoteWords(args[1:]))
	case dash > 1:
		return surplus(args[1:dash])
	case dash == 1 && len(args) == 1:
		return badUsage("no command follows --").Hint("banger fork %s without -- makes copies", args[0])
	}
	o.ref, o.argv = args[0], args[1:]
	return nil
}

func (o *forkOptions) check(cmd *cobra.Command) error {
	switch {
	case o.count < 1 || o.count > banger.MostForks:
		return badUsage("bad number of copies %d: it must be from 1 to %d", o.count, banger.MostForks)
	case o.rm && len(o.argv) == 0:
		return badUsage("--rm is for copies that run a command: without one they would go at once").
			Hint("banger fork %s --rm -- CMD", o.ref)
	case o.out.quiet && len(o.argv) > 0:
		return badUsage("-q is for copies without a command").Hint("--json prints the results with ids")
	}
	if cmd.Flags().Changed("name") {
		return banger.ValidateVMName(fmt.Sprintf("%s-%d", o.name, o.count))
	}
	return nil
}

func (o *forkOptions) run(cmd *cobra.Command) error {
	if err := o.check(cmd); err != nil {
		return err
	}
	if len(o.argv) > 0 {
		return (&forkRun{forkOptions: o}).run(cmd.Context())
	}
	return o.app.with(cmd, func(ctx context.Context, c *client.Client) error {
		t := newTrace()
		forks, err := o.make(ctx, c)
		if err != nil {
			return err
		}
		t.mark("talk")
		if o.trace {
			for _, vm := range forks.VMs {
				t.of(vm).report(o.app.voice, o.prefix(vm))
			}
		}
		return o.show(forks)
	})
}

// make has the copies made and says what there is to say of that.
func (o *forkOptions) make(ctx context.Context, c *client.Client) (api.Forks, error) {
	vm, err := c.VM(ctx, o.ref)
	if err != nil {
		return api.Forks{}, err
	}
	p := o.app.progress()
	defer p.end()
	forks, err := c.ForkVM(ctx, vm.ID, api.ForkVM{Count: o.count, Prefix: o.name, Ephemeral: o.rm}, p.watch)
	if err != nil {
		return forks, err
	}
	took := elapsed(p.end())
	if forks.PauseMillis > 0 {
		o.app.say("%s was forked in %s and stood still for %.0f ms", vm.Name, took, forks.PauseMillis)
	} else {
		o.app.say("%s was forked in %s", vm.Name, took)
	}
	if vm.State.Live() || vm.State == banger.StateSuspended {
		o.app.say("processes forked alive keep the state of their own random generators, and their connections to the address of %s are dead", vm.Name)
	}
	return forks, nil
}

func (o *forkOptions) show(forks api.Forks) error {
	if o.out.json {
		return o.app.json(forks)
	}
	for _, vm := range forks.VMs {
		line := vm.Name
		if o.out.quiet {
			line = vm.ID
		}
		if _, err := fmt.Fprintln(o.app.Out, line); err != nil {
			return err
		}
	}
	return nil
}

// prefix tells lines about one of several copies apart.
func (o *forkOptions) prefix(vm api.VM) string {
	if o.count < 2 {
		return ""
	}
	return vm.Name + ": "
}
