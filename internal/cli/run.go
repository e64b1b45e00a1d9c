package cli

import "github.com/spf13/cobra"

type runOptions struct {
	app     *app
	argv    []string
	shape   shapeFlags
	command commandFlags
	rm      bool
	detach  bool
	trace   bool
	json    bool
}

func newRun(a *app) *cobra.Command {
	o := &runOptions{app: a}
	cmd := &cobra.Command{
		Use:   "run [flags] [-- <command> [args]...]",
		Short: "Create a VM and run a command or a shell in it",
		Long: `Create a VM, start it, and run a command or an interactive shell in it. banger exits with the
command's status: 128+n for a signal, 127 for a command that is not there, 126 for one that cannot
be executed, 125 where banger itself failed.

The command gets a terminal when stdin and stdout are terminals; stdin is always passed. The VM
stays when the command has ended, unless --rm is given.`,
		Example: `  banger run
  banger run --rm -- cat /etc/debian_version
  banger run --name devbox --memory 4G -d
  echo 'print(6*7)' | banger run --rm -- python3 -`,
		Args: func(cmd *cobra.Command, args []string) error { return o.arguments(cmd.ArgsLenAtDash(), args) },
		RunE: func(cmd *cobra.Command, _ []string) error { return o.check(cmd) },

		DisableFlagsInUseLine: true,
	}
	o.shape.register(a, cmd)
	o.command.register(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&o.rm, "rm", false, "delete the VM when the command has ended, however it ends")
	flags.BoolVarP(&o.detach, "detach", "d", false, "start the VM, print its name and return")
	flags.BoolVar(&o.trace, "trace", false, "say afterwards where the time went")
	flags.BoolVar(&o.json, "json", false, "with -d: print the VM as JSON, with where the time went")
	return cmd
}

// arguments splits the command line at "--".
func (o *runOptions) arguments(dash int, args []string) error {
	if dash == 0 && len(args) == 0 {
		return badUsage("no command follows --").Hint("banger run without -- opens a shell")
	}
	if dash != 0 && len(args) > 0 {
		err := badUsage("cannot bring %q into the VM: workspaces are not there yet", args[0])
		if dash < 0 {
			return err.Hint("if it is a command: banger run -- %s", quoteWords(args))
		}
		return err.Hint("banger vm cp copies files into a VM")
	}
	o.argv = args
	return nil
}

// check refuses what makes no sense before anything is touched.
func (o *runOptions) check(cmd *cobra.Command) error {
	if o.detach {
		if err := o.checkDetached(); err != nil {
			return err
		}
	} else if o.json {
		return badUsage("--json is for -d: without it stdout is the command's").Hint("banger vm show has the same")
	}
	request, err := o.command.request(o.app.tty, o.argv, true)
	if err != nil {
		return err
	}
	vm, err := o.shape.request(cmd)
	if err != nil {
		return err
	}
	vm.Ephemeral, vm.Start, vm.Wait = o.rm, true, o.detach
	r := &launch{app: o.app, create: vm, request: request, timeout: o.command.timeout, trace: newTrace(), json: o.json}
	if o.detach {
		err = r.detached(cmd.Context())
	} else {
		err = r.attached(cmd.Context())
	}
	if o.trace {
		r.trace.report(o.app.voice, "")
	}
	return err
}

func (o *runOptions) checkDetached() error {
	f := o.command
	switch {
	case o.rm:
		return badUsage("-d and --rm contradict each other: a VM that nobody waits for would go at once")
	case len(o.argv) > 0:
		return badUsage("-d starts a VM without a command").
			Hint("banger run -d --name devbox && banger exec -d devbox -- %s", quoteWords(o.argv))
	case f.pty || f.timeout != 0 || f.dir != "" || f.user != "" || len(f.env) > 0 || f.envFile != "":
		return badUsage("-t, -e, --env-file, -w, --user and --timeout are for a command, and -d has none")
	}
	return nil
}
