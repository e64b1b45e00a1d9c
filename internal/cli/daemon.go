package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/paths"
)

func newDaemon(a *app) *cobra.Command {
	return newGroup(a, "daemon", "The daemon, which starts by itself",
		newDaemonStatus(a), newDaemonStop(a), newDaemonRun(a))
}

func newDaemonStatus(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Say whether the daemon runs; exit with 1 where it does not",
		Example: `  banger daemon status`,
		Args:    exactly(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.daemonStatus(cmd.Context(), asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) daemonStatus(ctx context.Context, asJSON bool) error {
	c, err := a.find(ctx)
	if banger.CodeOf(err) == banger.Unavailable {
		a.say("no daemon runs; it starts when it is needed")
		return statusError(exitFailed)
	}
	if err != nil {
		return err
	}
	defer c.Close()
	v, err := c.Version(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		return a.json(v)
	}
	_, err = fmt.Fprintf(a.Out, "running\nversion  %s (%s)\npid      %d\nsocket   %s\nstate    %s\n",
		v.Version, v.Commit, v.PID, v.Socket, v.State)
	return err
}

func newDaemonStop(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "stop",
		Short:   "End the daemon; VMs go on",
		Example: `  banger daemon stop`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.find(cmd.Context())
			if banger.CodeOf(err) == banger.Unavailable {
				a.say("no daemon runs")
				return nil
			}
			if err != nil {
				return err
			}
			defer c.Close()
			return c.StopDaemon(cmd.Context(), force)
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "cancel operations that are under way")
	return cmd
}

func newDaemonRun(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "run",
		Short:  "Run the daemon in the foreground",
		Hidden: true,
		Args:   exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			dirs, err := paths.FromEnv()
			if err != nil {
				return err
			}
			return a.deps.Daemon(cmd.Context(), dirs)
		},
	}
}

// newTemplate is what the daemon starts to make a template.
func newTemplate(a *app) *cobra.Command {
	cmd := newGroup(a, "template", "Saved machines that VMs are forked from", &cobra.Command{
		Use:   "make <spec>",
		Short: "Make the template that a file asks for",
		Args:  exactly("spec"),
		RunE:  func(cmd *cobra.Command, args []string) error { return a.deps.Template(cmd.Context(), args[0]) },
	})
	cmd.Hidden = true
	return cmd
}

// newShim is what the daemon starts per VM.
func newShim(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "shim <directory>",
		Short:  "Supervise the VM in a directory",
		Hidden: true,
		Args:   exactly("directory"),
		RunE:   func(cmd *cobra.Command, args []string) error { return a.deps.Shim(cmd.Context(), args[0]) },
	}
}
