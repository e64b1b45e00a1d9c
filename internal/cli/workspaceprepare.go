package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger/client"
)

type prepareOptions struct {
	app   *app
	ref   string
	path  string
	flags workspaceFlags
	user  string
	force bool
}

func newPrepare(a *app) *cobra.Command {
	o := &prepareOptions{app: a}
	cmd := &cobra.Command{
		Use:   "prepare <vm> [path]",
		Short: "Bring a git repository into a VM, or up to date there",
		Long: `Copy the git repository that a path lies in (default: the one you are in) into a VM, with the files
as they are. It is only read here. The second time what changed here is brought in; what only the VM
changed stays. Where both sides changed the same file, or the VM made commits, nothing is written
and the files are named, unless --force is given.`,
		Example: `  banger vm workspace prepare devbox
  banger vm workspace prepare devbox ~/src/app --mode full
  banger vm workspace prepare . --dry-run`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return badUsage("no VM is given")
			}
			o.ref, o.path = args[0], "."
			if len(args) > 1 {
				o.path = args[1]
				return surplus(args[2:])
			}
			return nil
		},
		ValidArgsFunction: a.completeVMs(one, wakes),
		RunE:              func(cmd *cobra.Command, _ []string) error { return o.check(cmd) },
	}
	o.flags.register(a, cmd)
	cmd.Flags().StringVar(&o.user, "user", "", "have the files become those of the user `NAME`, in whose home they then are; one the image lacks is created with your uid")
	cmd.Flags().BoolVar(&o.force, "force", false, "put your state over the VM's")
	return cmd
}

func (o *prepareOptions) check(cmd *cobra.Command) error {
	plan, err := o.flags.plan(cmd, o.path)
	if err != nil {
		return err
	}
	b := &bringing{app: o.app, plan: plan, force: o.force, anybodys: o.user == "", placed: cmd.Flags().Changed("guest-path")}
	b.user, b.guestPath = o.flags.place(cmd, o.user)
	do := o.run
	if o.flags.dryRun {
		do = o.preview
	}
	return o.app.with(cmd, func(ctx context.Context, c *client.Client) error { return do(ctx, c, b) })
}

// preview says what would go in, and wakes no VM for it.
func (o *prepareOptions) preview(ctx context.Context, c *client.Client, b *bringing) error {
	vm, err := c.VM(ctx, o.ref)
	if err != nil {
		return err
	}
	b.settle(ctx, c, vm)
	return o.app.preview(ctx, b.plan, b.user, b.guestPath)
}

func (o *prepareOptions) run(ctx context.Context, c *client.Client, b *bringing) error {
	vm, sh, err := o.app.reach(ctx, c, o.ref)
	if err != nil {
		return err
	}
	defer sh.Close()
	b.settle(ctx, c, vm)
	b.notes()
	b.begin(ctx, vm.Workspace.IsZero())
	defer b.end()
	_, err = b.deliver(ctx, c, vm, sh)
	return err
}
