package cli

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/artifact"
	"banger/internal/paths"
	"banger/internal/sshconfig"
)

type sshConfigOptions struct {
	app                *app
	install, uninstall bool
}

func newSSHConfig(a *app) *cobra.Command {
	o := &sshConfigOptions{app: a}
	cmd := &cobra.Command{
		Use:   "ssh-config",
		Short: "Make NAME.vm a host for ssh, scp, rsync, git and editors",
		Long: `Print the part of an ssh configuration that makes NAME.vm reach the VM of that name, whatever its network.
With --install it is included at the top of ~/.ssh/config; other hosts keep what they have. Host keys
are made and pinned by banger, in files of its own.`,
		Example: `  banger ssh-config --install
  ssh devbox.vm
  git clone devbox.vm:repo
  banger ssh-config --uninstall`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case o.install && o.uninstall:
				return badUsage("--install and --uninstall contradict each other")
			case o.uninstall:
				return o.remove()
			}
			return a.with(cmd, o.run)
		},
	}
	cmd.Flags().BoolVar(&o.install, "install", false, "include it in ~/.ssh/config")
	cmd.Flags().BoolVar(&o.uninstall, "uninstall", false, "take it out of ~/.ssh/config again")
	return cmd
}

func (o *sshConfigOptions) run(ctx context.Context, c *client.Client) error {
	keys, err := c.SSHKeys(ctx)
	if err != nil {
		return err
	}
	place, err := placeOf(keys)
	if err != nil {
		return err
	}
	if !o.install {
		_, err := fmt.Fprint(o.app.Out, place.Block())
		return err
	}
	file, err := userSSHConfig()
	if err == nil {
		err = artifact.WriteFile(file.Include, []byte(place.Block()))
	}
	if err == nil {
		err = file.Install()
	}
	if err != nil {
		return banger.Errorf(banger.Unavailable, "cannot install the shortcut for ssh: %w", err)
	}
	o.app.say("%s includes it at the top: ssh NAME.vm reaches a VM", file.Path)
	return nil
}

func (o *sshConfigOptions) remove() error { return removeSSHConfig() }

// removeOurSSHConfig is removeSSHConfig unless what is there is another state
// directory's.
func removeOurSSHConfig() error {
	file, err := userSSHConfig()
	if err != nil {
		return err
	}
	if ours, err := file.Includes(); err != nil || !ours {
		return err
	}
	return removeSSHConfig()
}

func removeSSHConfig() error {
	file, err := userSSHConfig()
	if err == nil {
		err = file.Uninstall()
	}
	if err == nil {
		if err = os.Remove(file.Include); os.IsNotExist(err) {
			err = nil
		}
	}
	if err != nil {
		return banger.Errorf(banger.Unavailable, "cannot remove the shortcut for ssh: %w", err)
	}
	return nil
}

// userSSHConfig is the file that ssh reads for this user.
func userSSHConfig() (sshconfig.File, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return sshconfig.File{}, err
	}
	dirs, err := paths.FromEnv()
	return sshconfig.Of(home, dirs.SSHConfig()), err
}
