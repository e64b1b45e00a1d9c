package cli

import (
	"github.com/spf13/cobra"

	"banger"
	"banger/internal/workspace"
)

type runOptions struct {
	app   *app
	path  string // of a repository to bring in, or ""
	argv  []string
	shape shapeFlags
	bring workspaceFlags

	noBootstrap bool

	command commandFlags
	rm      bool
	detach  bool
	trace   bool
	json    bool
}

func newRun(a *app) *cobra.Command {
	o := &runOptions{app: a}
	cmd := &cobra.Command{
		Use:   "run [flags] [path] [-- <command> [args]...]",
		Short: "Create a VM and run a command or a shell in it, with your repository",
		Long: `Create a VM, start it, and run a command or an interactive shell in it. banger exits with the
command's status: 128+n for a signal, 127 for a command that is not there, 126 for one that cannot
be executed, 125 where banger itself failed. With -d there is no command, and that is 1.

With a path, the git repository that it lies in is copied to /root/repo in the VM, with --user to
repo in the home of that user, whose the files become. They come as they are, and the command or shell begins there. Your repository is only read. Files that git does not
track stay, unless --include-untracked is given; ignored ones come if .bangerinclude names them, in
the form of .gitignore.

The command gets a terminal when stdin and stdout are terminals; stdin is always passed. The VM
stays when the command has ended, unless --rm is given.`,
		Example: `  banger run . -- make test
  banger run
  banger run --rm -- cat /etc/debian_version
  banger run --name devbox --memory 4G -d
  echo 'print(6*7)' | banger run --rm -- python3 -`,
		Args: func(cmd *cobra.Command, args []string) error { return o.arguments(cmd.ArgsLenAtDash(), args) },
		RunE: func(cmd *cobra.Command, _ []string) error { return o.check(cmd) },

		DisableFlagsInUseLine: true,
	}
	o.shape.register(a, cmd)
	o.command.register(cmd)
	o.bring.register(a, cmd)
	flags := cmd.Flags()
	flags.BoolVar(&o.noBootstrap, "no-bootstrap", false, "do not install the tools that mise.toml or .tool-versions names")
	flags.BoolVar(&o.rm, "rm", false, "delete the VM when the command has ended, however it ends")
	flags.BoolVarP(&o.detach, "detach", "d", false, "start the VM, print its name and return")
	flags.BoolVar(&o.trace, "trace", false, "say afterwards where the time went")
	flags.BoolVar(&o.json, "json", false, "with -d: print the VM as JSON, with where the time went")
	return cmd
}

// arguments splits the command line at "--".
func (o *runOptions) arguments(dash int, args []string) error {
	before := args
	if dash >= 0 {
		before, o.argv = args[:dash], args[dash:]
		if len(o.argv) == 0 {
			return badUsage("no command follows --").Hint("banger run without -- opens a shell")
		}
	}
	switch {
	case len(before) > 1:
		return badUsage("too many arguments: one path can be brought in").
			Hint("if it is a command: banger run -- %s", quoteWords(before))
	case len(before) == 1:
		o.path = before[0]
	}
	return nil
}

// repository looks at the repository to bring in, nil for none.
func (o *runOptions) repository(cmd *cobra.Command) (*workspace.Plan, error) {
	if o.path == "" {
		for _, name := range workspaceFlagNames {
			if cmd.Flags().Changed(name) {
				return nil, badUsage("--%s is for a repository, and no path is given", name).Hint("banger run .")
			}
		}
		return nil, nil
	}
	plan, err := o.bring.plan(cmd, o.path)
	if banger.CodeOf(err) == banger.NotFound && len(o.argv) == 0 && o.bring.from == "" {
		err = banger.Errorf(banger.BadRequest, "%w", err).Hint("if it is a command: banger run -- %s", quoteWords([]string{o.path}))
	}
	return plan, err
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
	vm, err := o.shape.request(o.app, cmd)
	if err != nil {
		return err
	}
	plan, err := o.repository(cmd)
	if err != nil {
		return o.failed(err)
	}
	user, guestPath := o.bring.place(cmd, o.command.user)
	if o.bring.dryRun {
		return o.app.preview(cmd.Context(), plan, user, guestPath)
	}
	tools, err := o.bootstrap(plan, vm)
	if err != nil {
		return o.failed(err)
	}
	vm.Ephemeral, vm.Start, vm.Wait = o.rm, true, o.detach
	r := &launch{app: o.app, create: vm, request: request, timeout: o.command.timeout, trace: newTrace(), json: o.json}
	if plan != nil {
		r.bring = &bringing{app: o.app, plan: plan, guestPath: guestPath, user: user, anybodys: o.command.user == "", placed: cmd.Flags().Changed("guest-path")}
		r.tools = tools
	}
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

// failed is a failure of banger before there is a VM. With -d there is no command
// whose status it could be taken for.
func (o *runOptions) failed(err error) error {
	if o.detach {
		return err
	}
	return asOurs(err)
}

func (o *runOptions) checkDetached() error {
	f := o.command
	switch {
	case o.rm:
		return badUsage("-d and --rm contradict each other: a VM that nobody waits for would go at once")
	case len(o.argv) > 0:
		return badUsage("-d starts a VM without a command").
			Hint("banger run -d --name devbox && banger exec -d devbox -- %s", quoteWords(o.argv))
	case f.pty || f.timeout != 0 || f.dir != "" || len(f.env) > 0 || f.envFile != "":
		return badUsage("-t, -e, --env-file, -w and --timeout are for a command, and -d has none")
	case f.user != "" && o.path == "":
		return badUsage("--user is for a command or a repository, and there is neither").
			Hint("banger exec --user %s VM -- CMD", banger.ShellWord(f.user))
	}
	return nil
}
