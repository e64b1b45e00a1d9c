package cli

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/api"
)

func newKernel(a *app) *cobra.Command {
	return newGroup(a, "kernel", "The kernels VMs boot",
		newKernelList(a), newKernelShow(a), newKernelPull(a), newKernelImport(a), newKernelDelete(a))
}

func newKernelList(a *app) *cobra.Command {
	var out listFlags
	var available bool
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List kernels",
		Example: `  banger kernel list
  banger kernel list --available`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				kernels, err := c.Kernels(ctx, available)
				if err != nil {
					return err
				}
				return a.printKernels(kernels, out)
			})
		},
	}
	out.register(cmd, "names")
	cmd.Flags().BoolVar(&available, "available", false, "list those that can be pulled too")
	return cmd
}

func (a *app) printKernels(kernels []api.Kernel, out listFlags) error {
	if out.json {
		return a.json(kernels)
	}
	t := newTable("NAME", "STATE", "SIZE", "RELEASE", "DISTRO", "USED BY")
	for _, k := range kernels {
		name := cmp.Or(k.Name, banger.ShortID(k.Digest)) // one whose name points elsewhere by now
		if out.quiet {
			fmt.Fprintln(a.Out, cmp.Or(k.Name, k.Digest))
			continue
		}
		size := ""
		if k.SizeBytes > 0 {
			size = banger.ApproxSize(k.SizeBytes)
		}
		t.row(name, k.State, size, k.Release, k.Distro, used(k.UsedBy))
	}
	if !out.quiet {
		a.print(t)
	}
	return nil
}

func newKernelShow(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:               "show <kernel>",
		Short:             "Show a kernel, as JSON",
		Example:           `  banger kernel show debian-cloud`,
		Args:              exactly("kernel"),
		ValidArgsFunction: a.completeKernels,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				kernel, err := c.Kernel(ctx, args[0])
				if err != nil {
					return err
				}
				return a.json(kernel)
			})
		},
	}
	cmd.Flags().Bool("json", true, "print JSON; it is the only form")
	return cmd
}

func newKernelPull(a *app) *cobra.Command {
	var req api.PullKernel
	cmd := &cobra.Command{
		Use:   "pull <name-or-reference>",
		Short: "Get a kernel of the catalogue, of this host or of a registry",
		Long: `Get a kernel, so that VMs can boot it. debian-cloud comes from the host's own package sources: it is
downloaded and unpacked, not installed. host is the kernel that runs here, where its files may be read.
Anything with a slash or a colon is the reference of an image that holds /kernel (a bzImage) and /kernel.tar
(its modules), as those of linuxkit do; the kernel is then called as an image of it would be, or --name.`,
		Example: `  banger kernel pull debian-cloud
  banger kernel pull host
  banger kernel pull linuxkit/kernel:6.6.71 --name lk`,
		Args:              exactly("kernel"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Name, req.Access = args[0], access()
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				return a.addKernel(func(p *progress) (api.Kernel, error) { return c.PullKernel(ctx, req, p.watch) })
			})
		},
	}
	cmd.Flags().StringVar(&req.As, "name", "", "call it `NAME` (default: the last part of the reference and its tag)")
	cmd.Flags().BoolVar(&req.Force, "force", false, "get it again")
	return cmd
}

func (a *app) addKernel(add func(*progress) (api.Kernel, error)) error {
	p := a.progress()
	defer p.end()
	k, err := add(p)
	if err != nil {
		return err
	}
	a.say("%s (%s) is ready after %s", k.Name, k.Release, elapsed(p.end()))
	_, err = fmt.Fprintln(a.Out, k.Name)
	return err
}

func newKernelImport(a *app) *cobra.Command {
	var req api.ImportKernel
	cmd := &cobra.Command{
		Use:   "import <name>",
		Short: "Take a kernel from files",
		Long: `Take a kernel from a directory that holds vmlinuz (or vmlinux) and modules, or from a kernel file
and a directory of modules. The files are copied.`,
		Example: `  banger kernel import mine --from ./kernel
  banger kernel import mine --vmlinuz ./vmlinuz --modules ./lib/modules/6.1.0-mine`,
		Args:              exactly("name"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Name = args[0]
			if err := checkImport(&req); err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				return a.addKernel(func(p *progress) (api.Kernel, error) { return c.ImportKernel(ctx, req, p.watch) })
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&req.From, "from", "", "`DIR` with vmlinuz and modules")
	flags.StringVar(&req.Vmlinuz, "vmlinuz", "", "kernel `FILE`: a bzImage or an ELF vmlinux")
	flags.StringVar(&req.Modules, "modules", "", "`DIR` of its modules, as in /lib/modules/RELEASE")
	flags.StringVar(&req.Distro, "distro", "", "record where it is from")
	flags.StringVar(&req.Arch, "arch", "", "record its architecture (default amd64)")
	return cmd
}

// checkImport refuses a request that makes no sense and makes its paths
// absolute: the daemon has a working directory of its own.
func checkImport(req *api.ImportKernel) error {
	if err := banger.ValidateKernelName(req.Name); err != nil {
		return err
	}
	switch {
	case req.From == "" && req.Vmlinuz == "":
		return badUsage("no kernel is given").
			Hint("banger kernel import %s --from DIR, or --vmlinuz FILE --modules DIR", req.Name)
	case req.From != "" && (req.Vmlinuz != "" || req.Modules != ""):
		return badUsage("--from stands for both --vmlinuz and --modules")
	}
	return makeAbsolute(&req.From, &req.Vmlinuz, &req.Modules)
}

// makeAbsolute makes paths absolute where they are given.
func makeAbsolute(paths ...*string) error {
	for _, path := range paths {
		if *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = abs
	}
	return nil
}

func newKernelDelete(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "rm <kernel>...",
		Aliases:           []string{"delete"},
		Short:             "Remove kernels that no VM uses",
		Example:           `  banger kernel rm mine`,
		Args:              atLeastOne("kernel"),
		ValidArgsFunction: a.completeKernels,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				return a.eachName(ctx, args, c.DeleteKernel)
			})
		},
	}
}
