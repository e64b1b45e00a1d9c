package cli

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/paths"
	"banger/internal/service"
	"banger/internal/store"
)

func newSystem(a *app) *cobra.Command {
	return newGroup(a, "system", "banger as a service of your systemd, which nothing needs",
		newSystemInstall(a), newSystemStatus(a), newSystemRestart(a), newSystemUninstall(a))
}

// systemCommand is a command about the service.
func (a *app) systemCommand(cmd *cobra.Command, do func(ctx context.Context, dirs paths.Dirs, m service.Manager) error) error {
	ctx, stop := cancelOnSignal(cmd.Context())
	defer stop()
	dirs, err := paths.FromEnv()
	if err != nil {
		return err
	}
	return interrupted(ctx, do(ctx, dirs, service.Manager{Path: dirs.Unit()}))
}

func newSystemInstall(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "install",
		Short: "Have systemd run the daemon from login on",
		Long: `Write a unit for the systemd of your user, and start it. The daemon starts by itself without it too; as
a service it is there from login on, is started again when it fails, is confined, and its VMs have scopes of
their own. VMs that run go on. A unit that you wrote or edited is left alone.

Whatever starts the daemon has the service do it then, after an update of banger too. The service may not build
images of Debian: pull the image before.`,
		Example: `  banger image pull debian-bookworm
  banger system install
  loginctl enable-linger`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.systemCommand(cmd, a.systemInstall) },
	}
}

func (a *app) systemInstall(ctx context.Context, dirs paths.Dirs, m service.Manager) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	unit, err := service.Unit(exe, os.Environ())
	if err == nil {
		err = m.Installable(ctx)
	}
	if err == nil {
		err = a.stopDaemon(ctx) // the service's takes its place
	}
	if err == nil {
		err = m.Install(ctx, unit)
	}
	if err != nil {
		return banger.Wrap(err, "cannot install the service")
	}
	a.say("%s runs the daemon of %s", service.Name, exe)
	if i, err := store.Inspect(ctx, dirs.Database()); err == nil && len(i.Images) == 0 {
		a.hint("the service may not build images: banger system uninstall && banger image pull %s && banger system install", banger.DefaultImage)
	}
	return nil
}

// startService is what has the service start the daemon of these directories, or nil
// where there is no service that runs this executable.
func (a *app) startService(dirs paths.Dirs) func(context.Context) {
	m := service.Manager{Path: dirs.Unit()}
	exe, err := os.Executable()
	if err != nil || !service.Runs(m.Path, exe, os.Environ()) {
		return nil
	}
	return func(ctx context.Context) {
		if err := m.Start(ctx); err != nil {
			a.warn("%s did not start the daemon, which starts outside of it: %v", service.Name, err)
			for _, hint := range banger.HintsOf(err) {
				a.hint("%s", hint)
			}
		}
	}
}

func newSystemStatus(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Say how the service is; exit with 1 where it does not run",
		Example: `  banger system status`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.systemCommand(cmd, func(ctx context.Context, _ paths.Dirs, m service.Manager) error {
				return a.systemStatus(ctx, m, asJSON)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) systemStatus(ctx context.Context, m service.Manager, asJSON bool) error {
	s, err := m.Status(ctx)
	if err != nil {
		return err
	}
	switch {
	case asJSON:
		err = a.json(s)
	case s.Author == service.Nobody:
		a.say("the service is not installed; the daemon starts when it is needed")
	default:
		by := "by banger system install"
		if s.Author == service.Somebody {
			by = "or changed by hand"
		}
		_, err = fmt.Fprintf(a.Out, "%s\nunit   %s (written %s)\n", s.State, s.Unit, by)
		if s.PID != 0 {
			fmt.Fprintf(a.Out, "pid    %d\n", s.PID)
		}
	}
	if err == nil && s.State != "active" {
		err = statusError(exitFailed)
	}
	return err
}

func newSystemRestart(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "restart",
		Short:   "Restart the service; VMs go on",
		Example: `  banger system restart`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.systemCommand(cmd, func(ctx context.Context, _ paths.Dirs, m service.Manager) error {
				err := m.Restartable(ctx)
				if err == nil {
					err = a.stopDaemon(ctx) // which may be none of the service's
				}
				if err == nil {
					err = m.Restart(ctx)
				}
				return banger.Wrap(err, "cannot restart the service")
			})
		},
	}
}

func newSystemUninstall(a *app) *cobra.Command {
	var purge, force bool
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove the service; VMs go on",
		Long: `Stop the service and remove its unit. VMs, images and everything else stay, unless --purge is given,
which asks and then removes all VMs with their disks, images, kernels and caches. The configuration stays, and
so does what is not banger's.`,
		Example: `  banger system uninstall
  banger system uninstall --purge`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if force && !purge {
				return badUsage("-f means nothing without --purge")
			}
			return a.systemCommand(cmd, func(ctx context.Context, dirs paths.Dirs, m service.Manager) error {
				p := &purgeOptions{app: a, dirs: dirs, force: force}
				if purge {
					if ok, err := p.agreed(ctx); err != nil || !ok {
						return err
					}
				}
				was, err := m.Uninstall(ctx)
				switch {
				case err != nil:
					return banger.Wrap(err, "cannot uninstall the service")
				case was:
					a.say("removed %s", m.Path)
				default:
					a.say("the service is not installed")
				}
				if !purge {
					return nil
				}
				return banger.Wrap(p.run(ctx), "cannot remove everything")
			})
		},
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "remove all VMs, images, kernels and caches too, after asking")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "with --purge: do not ask")
	return cmd
}
