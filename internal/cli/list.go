package cli

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/api"
)

// listFlags are those of every command that lists.
type listFlags struct {
	json  bool
	quiet bool
}

func (f *listFlags) register(cmd *cobra.Command, ids string) {
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON")
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "print "+ids+" only, one a line")
}

type listOptions struct {
	app    *app
	out    listFlags
	all    bool
	latest bool
}

func newList(a *app) *cobra.Command {
	o := &listOptions{app: a, all: true}
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List all VMs",
		Example: `  banger vm list
  banger vm list --json
  banger rm $(banger vm list -q)`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.with(cmd, o.run) },
	}
	o.out.register(cmd, "ids")
	return cmd
}

func newPs(a *app) *cobra.Command {
	o := &listOptions{app: a}
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "List the VMs that run",
		Example: `  banger ps
  banger ps -a
  banger exec $(banger ps -q --latest) -- uptime`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.with(cmd, o.run) },
	}
	o.out.register(cmd, "ids")
	cmd.Flags().BoolVarP(&o.all, "all", "a", false, "list those that do not run too")
	cmd.Flags().BoolVar(&o.latest, "latest", false, "only the VM created last, in whatever state")
	return cmd
}

// listGCPercent is for a command that reads a large answer, prints it and ends:
// collecting on the way would be a sixth of its CPU time.
const listGCPercent = 400

func (o *listOptions) run(ctx context.Context, c *client.Client) error {
	debug.SetGCPercent(listGCPercent)
	vms, err := c.VMs(ctx)
	if err != nil {
		return err
	}
	vms = o.choose(vms)
	switch {
	case o.out.quiet:
		for _, vm := range vms {
			fmt.Fprintln(o.app.Out, vm.ID)
		}
		return nil
	case o.out.json:
		return o.app.json(vms)
	}
	o.app.print(vmTable(vms, time.Now()))
	return nil
}

func (o *listOptions) choose(vms []api.VM) []api.VM {
	switch {
	case o.latest:
		if len(vms) == 0 {
			return vms
		}
		return []api.VM{slices.MaxFunc(vms, func(x, y api.VM) int { return x.CreatedAt.Compare(y.CreatedAt) })}
	case o.all:
		return vms
	}
	return slices.DeleteFunc(vms, func(vm api.VM) bool { return !vm.State.Live() })
}

func vmTable(vms []api.VM, now time.Time) *table {
	t := newTable("ID", "NAME", "STATE", "IMAGE", "IP", "VCPU", "MEM", "DISK", "WORKSPACE", "CREATED")
	for _, vm := range vms {
		t.row(banger.ShortID(vm.ID), vm.Name, string(vm.State), vm.Image, vm.GuestIP,
			fmt.Sprint(vm.Spec.VCPU), banger.FormatSize(vm.Spec.MemoryMiB*banger.MiB), banger.FormatSize(vm.Spec.DiskBytes),
			vm.Workspace.SourcePath, age(vm.CreatedAt, now))
	}
	return t
}
