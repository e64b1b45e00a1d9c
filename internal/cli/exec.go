package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/guestlink"
	"banger/internal/guestwire"
	"banger/internal/paths"
)

type execOptions struct {
	app         *app
	ref         string
	argv        []string
	command     commandFlags
	interactive bool
	detach      bool
	guestPath   string
	autoPrepare bool
}

func newExec(a *app) *cobra.Command {
	o := &execOptions{app: a}
	cmd := &cobra.Command{
		Use:   "exec [flags] <vm> -- <command> [args]...",
		Short: "Run a command in a VM that runs or is suspended",
		Long: `Run a command in a VM and exit with its status: 128+n for a signal, 127 for a command that is not
there, 126 for one that cannot be executed, 125 where banger itself failed. A suspended VM is woken.

In a VM that has a repository (banger vm workspace) the command begins there, under mise where the VM
has mise, as the user it was brought in for; -w is relative to it. banger warns where you have moved on to another commit since.

With a terminal, stdin and stdout are the command's. Without one, stdin is passed only with -i;
INT, TERM and HUP are forwarded, and a second Ctrl-C within two seconds ends banger.`,
		Example: `  banger exec devbox -- uname -a
  banger exec devbox -- sh -c 'echo $HOME | tr a-z A-Z'
  tar c . | banger exec -i devbox -- tar x -C /srv`,
		Args:              func(cmd *cobra.Command, args []string) error { return o.arguments(cmd.ArgsLenAtDash(), args) },
		ValidArgsFunction: a.completeVMs(one, wakes),
		RunE:              func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },

		DisableFlagsInUseLine: true,
	}
	cmd.Flags().BoolVarP(&o.interactive, "interactive", "i", false, "pass stdin to the command")
	cmd.Flags().BoolVarP(&o.detach, "detach", "d", false, "leave the command running and return at once")
	cmd.Flags().StringVar(&o.guestPath, "guest-path", "", "begin in `DIR` instead of the VM's repository")
	cmd.Flags().BoolVar(&o.autoPrepare, "auto-prepare", false, "bring the repository up to date first where you are at another commit")
	o.command.register(cmd)
	return cmd
}

// arguments splits the command line at "--".
func (o *execOptions) arguments(dash int, args []string) error {
	switch {
	case len(args) == 0 || dash == 0:
		return badUsage("no VM is given").Hint("banger exec devbox -- uname -a")
	case dash < 0 && len(args) == 1:
		return badUsage("no command is given").Hint("banger exec %s -- uname -a", args[0])
	case dash != 1:
		return badUsage("the command must follow --").Hint("banger exec %s -- %s", args[0], quoteWords(args[1:]))
	case len(args) == 1:
		return badUsage("no command follows --").Hint("banger exec %s -- uname -a", args[0])
	}
	o.ref, o.argv = args[0], args[1:]
	return nil
}

func (o *execOptions) run(ctx context.Context) error {
	if o.detach && (o.interactive || o.command.pty || o.command.timeout != 0) {
		return badUsage("-d cannot be combined with -i, -t or --timeout: nobody stays to see to them")
	}
	t := o.app.tty
	if o.detach {
		t = tty{}
	}
	request, err := o.command.request(t, o.argv, o.interactive)
	if err != nil {
		return err
	}
	g, err := o.once(ctx, request)
	if g != nil && banger.CodeOf(err) == banger.NotRunning && !request.Stdin && saved(g.dir) {
		_, err = o.once(ctx, request) // it was suspended in this very moment, and nothing ran
	}
	return err
}

// once finds the VM and runs the command in it; the command is nil where it did not
// come to that.
func (o *execOptions) once(ctx context.Context, request guestwire.Exec) (*guestCommand, error) {
	g, err := o.prepare(ctx, request)
	if err != nil {
		return nil, asOurs(err)
	}
	defer g.shim.Close()
	if o.detach {
		return g, g.detach(ctx)
	}
	return g, g.run(ctx)
}

// prepare finds the VM and connects to its shim, until a signal says not to.
func (o *execOptions) prepare(ctx context.Context, request guestwire.Exec) (*guestCommand, error) {
	ctx, stop := cancelOnSignal(ctx)
	defer stop()
	c, err := o.app.connect(ctx)
	if err != nil {
		return nil, interrupted(ctx, err)
	}
	defer c.Close()
	vm, sh, err := o.app.reach(ctx, c, o.ref)
	if err != nil {
		return nil, interrupted(ctx, err)
	}
	if vm, err = o.follow(ctx, c, vm, sh); err != nil {
		sh.Close()
		return nil, interrupted(ctx, err)
	}
	base := o.guestPath
	if base == "" {
		base = vm.Workspace.GuestPath
	}
	if request.User == "" && o.guestPath == "" {
		request.User = ownerOf(vm.Workspace)
	}
	request.Dir = placed(base, request.Dir)
	if base != "" {
		request.Under = mise
	}
	if err := o.app.inheritProxy(ctx, vm, sh, &request); err != nil {
		sh.Close()
		return nil, interrupted(ctx, err)
	}
	return &guestCommand{
		v: o.app.voice, vm: vm.Name, dir: paths.VM(vm.Dir), shim: sh, request: request, timeout: o.command.timeout,
	}, nil
}

// detach starts the command and returns; the agent keeps it.
func (g *guestCommand) detach(ctx context.Context) error {
	g.request.Detach = true
	body, err := g.shim.Conn().Call(ctx, guestwire.KindExec, g.request.Append(nil))
	if err != nil {
		return ours{g.lost(guestlink.Error(err))}
	}
	exit, err := guestwire.ParseExit(body)
	return g.outcome(ctx, exit, err)
}

// asOurs marks what is not the user's mistake as a failure of banger.
func asOurs(err error) error {
	if err == nil || isInterrupt(err) || banger.CodeOf(err) == banger.BadRequest {
		return err
	}
	return ours{err}
}
