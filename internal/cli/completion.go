package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/api"
)

// completionLimit bounds what a press of TAB may wait for.
const completionLimit = 2 * time.Second

func newCompletion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print the completion script of a shell",
		Long: `Print a script that makes a shell complete banger's commands, flags and the names of VMs, images
and kernels.`,
		Example: `  source <(banger completion bash)
  banger completion zsh > "${fpath[1]}/_banger"
  banger completion fish > ~/.config/fish/completions/banger.fish`,
		Args:      exactly("shell"),
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.Out, true)
			case "zsh":
				return root.GenZshCompletion(a.Out)
			case "fish":
				return root.GenFishCompletion(a.Out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.Out)
			}
			return badUsage("bad shell %q: it must be bash, zsh, fish or powershell", args[0])
		},
	}
}

// Which VMs are offered, and how many arguments take one.
const (
	one  = 1
	many = 1 << 30
)

func anyState(api.VM) bool   { return true }
func live(vm api.VM) bool    { return vm.State.Live() }
func wakes(vm api.VM) bool   { return vm.State.Live() || vm.State == banger.StateSuspended }
func notLive(vm api.VM) bool { return !vm.State.Live() }

type completer = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// askQuietly asks a daemon that runs. Completion starts none, and has nothing to say
// where there is none.
func (a *app) askQuietly(cmd *cobra.Command, list func(context.Context, *client.Client) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionLimit)
	defer cancel()
	c, err := a.find(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.Close()
	names, err := list(ctx, c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeVMs offers the names of VMs for the first limit arguments.
func (a *app) completeVMs(limit int, wanted func(api.VM) bool) completer {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= limit {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return a.askQuietly(cmd, func(ctx context.Context, c *client.Client) ([]string, error) {
			vms, err := c.VMs(ctx)
			var names []string
			for _, vm := range vms {
				if wanted(vm) && !slices.Contains(args, vm.Name) {
					names = append(names, vm.Name+"\t"+string(vm.State))
				}
			}
			return names, err
		})
	}
}

// completeSnapshots offers VMs for the first argument, and then the names of
// limit snapshots of that VM.
func (a *app) completeSnapshots(limit int) completer {
	vms := a.completeVMs(one, anyState)
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		switch {
		case len(args) == 0:
			return vms(cmd, args, prefix)
		case len(args) > limit:
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.askQuietly(cmd, func(ctx context.Context, c *client.Client) (names []string, err error) {
			all, err := c.Snapshots(ctx, args[0])
			for _, s := range all {
				if !slices.Contains(args[1:], s.Name) {
					names = append(names, s.Name)
				}
			}
			return names, err
		})
	}
}

func (a *app) completeImages(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.askQuietly(cmd, func(ctx context.Context, c *client.Client) (names []string, err error) {
		images, err := c.Images(ctx)
		for _, i := range images {
			names = append(names, i.Name)
		}
		return names, err
	})
}

func (a *app) completeKernels(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.askQuietly(cmd, func(ctx context.Context, c *client.Client) (names []string, err error) {
		kernels, err := c.Kernels(ctx, false)
		for _, k := range kernels {
			names = append(names, k.Name)
		}
		return names, err
	})
}

// completeFlag offers the few values a flag may have.
func (a *app) completeFlag(cmd *cobra.Command, flag string, values ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}
