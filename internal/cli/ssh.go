package cli

import (
	"context"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"banger"
	"banger/client"
	"banger/internal/api"
	"banger/internal/paths"
	"banger/internal/sshconfig"
	"banger/internal/sshkeys"
)

type sshOptions struct {
	app   *app
	user  string
	agent bool
}

func newSSH(a *app) *cobra.Command {
	o := &sshOptions{app: a}
	cmd := &cobra.Command{
		Use:   "ssh [flags] [user@]<vm> [ssh args]...",
		Short: "Open an SSH session in a VM",
		Long: `Run the host's ssh against a VM that runs or is suspended. Everything after the VM is ssh's: options, and a
command. It needs no network, and nothing in the VM's image: the server is banger itself.

"banger ssh-config --install" makes NAME.vm a host for ssh, scp, rsync, git and editors.`,
		Example: `  banger ssh devbox
  banger ssh devbox -L 8080:localhost:80 -N
  banger ssh alice@devbox 'echo $HOME'`,
		Args:              atLeastOne("VM"),
		ValidArgsFunction: a.completeVMs(one, wakes),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error { return o.run(ctx, c, args[0], args[1:]) })
		},

		DisableFlagsInUseLine: true,
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().StringVar(&o.user, "user", "", "log in as user `NAME` (default root); one the image lacks is created with your uid")
	cmd.Flags().BoolVar(&o.agent, "ssh-agent", false, "let the VM use your SSH agent for as long as the session lasts")
	return cmd
}

// run becomes ssh, whose status, signals and terminal are then its own.
func (o *sshOptions) run(ctx context.Context, c *client.Client, ref string, args []string) error {
	user := "root"
	if name, rest, found := strings.Cut(ref, "@"); found {
		user, ref = name, rest
	}
	if o.user != "" {
		user = o.user
	}
	ssh, err := sshconfig.Client()
	if err != nil {
		return banger.Errorf(banger.Unavailable, "cannot run ssh: %w", err).Hint("banger doctor names the package that has it")
	}
	keys, err := c.SSH(ctx, ref)
	if err != nil {
		return err
	}
	vm := keys.VM
	if err := reachable(vm); err != nil {
		return err
	}
	place, err := placeOf(keys.SSHKeys)
	if err != nil {
		return err
	}
	argv := append([]string{"ssh"}, place.Args(user, sshkeys.HostName(vm.Name), sshkeys.Alias(vm.ID), o.agent)...)
	if err := o.app.flush(); err != nil {
		return err
	}
	err = unix.Exec(ssh, append(argv, args...), os.Environ())
	return banger.Errorf(banger.Unavailable, "cannot run %s: %w", ssh, err)
}

// placeOf is where ssh finds what it needs.
func placeOf(keys api.SSHKeys) (sshconfig.Place, error) {
	exe, err := os.Executable()
	return sshconfig.Place{Exe: exe, Env: paths.Env(), KnownHosts: keys.KnownHosts, Identity: keys.Identity}, err
}
