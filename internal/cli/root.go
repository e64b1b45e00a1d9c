package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"banger/client"
	"banger/internal/paths"
)

// Deps is what the binary links in that commands only start.
type Deps struct {
	Daemon func(ctx context.Context, dirs paths.Dirs) error // the daemon, until it is told to stop
	Shim   func(ctx context.Context, dir string) error      // the shim of the VM in dir, until that ends

	Template func(ctx context.Context, spec string) error // makes the template that the file asks for

	// Instead is what this program is where its first argument is one of these: no
	// command line, but a step on the way to another program.
	Instead map[string]func(args []string) error
}

// app is what every command is made with.
type app struct {
	*voice
	deps Deps
	ran  bool // the command line was understood, and its command begun
}

// Main runs the command line, without the program's name, and returns the
// exit status.
func Main(args []string, deps Deps) int {
	if len(args) > 0 && deps.Instead[args[0]] != nil {
		err := deps.Instead[args[0]](args[1:])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	a := &app{voice: newVoice(), deps: deps}
	root := newRoot(a, args)
	root.SetArgs(args)
	root.SetOut(a.Out)
	root.SetErr(os.Stderr)
	cmd, err := root.ExecuteC()
	if err != nil && !a.ran {
		err = &usageError{err, cmd.UseLine()}
	}
	if flushErr := a.flush(); err == nil {
		err = flushErr
	}
	a.report(err)
	return exitStatus(err)
}

// report says what went wrong, unless that has been done.
func (a *app) report(err error) {
	if err == nil || errors.As(err, new(statusError)) {
		return
	}
	if isInterrupt(err) {
		a.say("interrupted")
		return
	}
	a.fail(err)
	var usage *usageError
	if errors.As(err, &usage) {
		a.hint("usage: %s", usage.line)
	}
}

// Groups of the root's help.
const (
	groupDaily = "daily"
	groupParts = "parts"
	groupCare  = "care"
)

// newRoot makes the tree of commands, of which asked needs perhaps only one.
func newRoot(a *app, asked []string) *cobra.Command {
	var version bool
	root := &cobra.Command{
		Use:   "banger",
		Short: "A real Linux machine in a moment, for a command, a shell or a day",
		Long: `banger runs microVMs: a command or a shell in a real Linux machine of its own,
as an ordinary user. It starts its daemon by itself.`,
		Example: `  banger run --rm -- cat /etc/debian_version
  banger run --name devbox
  banger exec devbox -- uname -a
  banger ps`,
		SilenceErrors:    true,
		SilenceUsage:     true,
		PersistentPreRun: func(*cobra.Command, []string) { a.ran = true },
		RunE: func(cmd *cobra.Command, args []string) error {
			if version {
				return (&versionOptions{app: a}).run()
			}
			return groupRun(a)(cmd, args)
		},
		Args: cobra.ArbitraryArgs,
	}
	root.Flags().BoolVar(&version, "version", false, "print the version")
	root.PersistentFlags().BoolP("help", "h", false, "explain the command")
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddGroup(
		&cobra.Group{ID: groupDaily, Title: "Every day:"},
		&cobra.Group{ID: groupParts, Title: "Machines and what they are made of:"},
		&cobra.Group{ID: groupCare, Title: "banger itself:"},
	)
	root.AddCommand(made(a, asked, commands(asked))...)
	root.SetHelpCommand(newHelp())
	root.SetHelpCommandGroupID(groupCare)
	return root
}

// commands are those of the root, in the order of its help.
func commands(asked []string) []entry {
	vm := func(a *app) *cobra.Command { return newVM(a, asked[min(len(asked), 1):]) }
	return []entry{
		{groupDaily, "run", newRun}, {groupDaily, "exec", newExec}, {groupDaily, "ssh", newSSH}, {groupDaily, "ps", newPs},
		{groupDaily, "start", newStart}, {groupDaily, "stop", newStop}, {groupDaily, "restart", newRestart},
		{groupDaily, "delete", newDelete}, {groupDaily, "cp", newCp}, {groupDaily, "logs", newLogs}, {groupDaily, "fork", newFork},
		{groupParts, "vm", vm}, {groupParts, "image", newImage}, {groupParts, "kernel", newKernel},
		{groupCare, "doctor", newDoctor}, {groupCare, "bench", newBench}, {groupCare, "config", newConfig},
		{groupCare, "ssh-config", newSSHConfig}, {groupCare, "daemon", newDaemon}, {groupCare, "system", newSystem},
		{groupCare, "version", newVersion}, {groupCare, "dns", newDNS}, {groupCare, "completion", newCompletion},
		{"", "shim", newShim}, {"", "ssh-proxy", newSSHProxy}, {"", "template", newTemplate},
	}
}

// newGroup is a command that only holds others.
func newGroup(a *app, use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, RunE: groupRun(a)}
	cmd.AddCommand(commands...)
	return cmd
}

// groupRun prints the help of a group that was named alone, and refuses a
// command it does not have: cobra would print help and call that a success.
func groupRun(a *app) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		err := badUsage("there is no command %q", strings.Join(append(strings.Fields(cmd.CommandPath()), args[0]), " "))
		cmd.SuggestionsMinimumDistance = 2
		for _, s := range cmd.SuggestionsFor(args[0]) {
			err = err.Hint("did you mean %s %s?", cmd.CommandPath(), s)
		}
		return err.Hint("%s --help lists the commands", cmd.CommandPath())
	}
}

// connect finds the daemon or starts it.
func (a *app) connect(ctx context.Context) (*client.Client, error) {
	dirs, err := paths.FromEnv()
	if err != nil {
		return nil, err
	}
	return client.Connect(ctx, dirs, client.Options{
		Warn:    func(msg string) { a.warn("%s", msg) },
		Service: a.startService(dirs),
	})
}

// find finds the daemon and starts none.
func (a *app) find(ctx context.Context) (*client.Client, error) {
	dirs, err := paths.FromEnv()
	if err != nil {
		return nil, err
	}
	return client.Find(ctx, dirs)
}

// with runs do with a connection to the daemon and a context that Ctrl-C
// ends.
func (a *app) with(cmd *cobra.Command, do func(ctx context.Context, c *client.Client) error) error {
	ctx, stop := cancelOnSignal(cmd.Context())
	defer stop()
	c, err := a.connect(ctx)
	if err != nil {
		return interrupted(ctx, err)
	}
	defer c.Close()
	return interrupted(ctx, do(ctx, c))
}

// exactly asks for a number of arguments, called by their names.
func exactly(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return badUsage("no %s is given", strings.Join(names[len(args):], " and no "))
		}
		return surplus(args[len(names):])
	}
}

// atLeastOne asks for one or more.
func atLeastOne(name string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return badUsage("no %s is given", name)
		}
		return nil
	}
}

func surplus(args []string) error {
	if len(args) == 0 {
		return nil
	}
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = fmt.Sprintf("%q", a)
	}
	return badUsage("too many arguments: %s", strings.Join(quoted, " "))
}
