package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"banger/client"
)

type cpOptions struct {
	app     *app
	archive bool
	follow  bool
}

func newCp(a *app) *cobra.Command {
	o := &cpOptions{app: a}
	cmd := &cobra.Command{
		Use:   "cp <source> <destination>",
		Short: "Copy files between the host and a VM",
		Long: `Copy a file or a directory from or to a VM: one side is VM:PATH. A VM that is suspended is woken.
Paths in the VM begin at its root. A directory is copied into a destination that is there, and becomes
one that is not; with /. at its end its contents are copied. "-" is a tar stream on stdin or stdout. A
local path with a colon is written with ./ before it.`,
		Example: `  banger cp ./app devbox:/srv/
  banger cp devbox:/var/log/syslog .
  banger cp devbox:/etc - | tar t`,
		Args:              exactly("source", "destination"),
		ValidArgsFunction: a.completeSides,
		RunE: func(cmd *cobra.Command, args []string) error {
			from, to, err := copySides(args[0], args[1])
			if err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *client.Client) error { return o.run(ctx, c, from, to) })
		},
	}
	cmd.Flags().BoolVarP(&o.archive, "archive", "a", false, "keep owners")
	cmd.Flags().BoolVarP(&o.follow, "follow-link", "L", false, "copy what a link named as source points at")
	return cmd
}

// completeSides offers VMs for one side of the copy, and local files where what was
// typed is none. The path in a VM is typed by hand.
func (a *app) completeSides(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	files := cobra.ShellCompDirectiveDefault
	if len(args) > 1 || len(args) == 1 && remote(args[0]) {
		return nil, files
	}
	if remote(typed) {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	vms, _ := a.completeVMs(one, wakes)(cmd, nil, typed)
	var sides []string
	for _, vm := range vms {
		name, state, _ := strings.Cut(vm, "\t")
		if strings.HasPrefix(name, typed) {
			sides = append(sides, name+":\t"+state)
		}
	}
	if len(sides) == 0 {
		return nil, files
	}
	return sides, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
}

// remote says whether an argument names a VM's side.
func remote(arg string) bool {
	return parseSide(arg).vm != ""
}

func (o *cpOptions) run(ctx context.Context, c *client.Client, from, to side) error {
	vm, sh, err := o.app.reach(ctx, c, from.vm+to.vm)
	if err != nil {
		return err
	}
	defer sh.Close()
	cp := &copying{app: o.app, vm: vm.Name, link: sh.Guest(), archive: o.archive, follow: o.follow}
	switch {
	case from.vm == "" && from.isStream():
		return cp.streamIn(ctx, to.path)
	case from.vm == "":
		return cp.in(ctx, from.path, to.path)
	case to.isStream():
		return cp.streamOut(ctx, from.path)
	}
	return cp.out(ctx, from.path, to.path)
}
