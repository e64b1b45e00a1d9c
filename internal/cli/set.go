package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/api"
	"banger/internal/vnet/reach"
)

type setOptions struct {
	app      *app
	refs     []string
	vcpu     int
	memory   string
	diskSize string
	nat      bool
	noNAT    bool
	allow    []string
	noAllow  bool
	dryRun   bool
	req      api.SetVM
}

func newSet(a *app) *cobra.Command {
	o := &setOptions{app: a}
	cmd := &cobra.Command{
		Use:   "set <vm>...",
		Short: "Change what VMs are and what they may reach",
		Long: `Change VMs. The network changes at once, also of VMs that run: connections that it no longer allows
end within a second. A disk grows at once too. Processors and memory change while a VM is stopped.

--allow adds rules to those there are, and --no-allow forgets them; both together put new ones in
their place.`,
		Example: `  banger vm set devbox --nat
  banger vm set devbox --no-nat --allow example.com:443 --allow '*.example.org'
  banger vm set devbox --disk-size 20G
  banger vm set --dry-run devbox testbox --memory 4G`,
		Args:              atLeastOne("VM"),
		ValidArgsFunction: a.completeVMs(many, anyState),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.refs = args
			if err := o.check(cmd); err != nil {
				return err
			}
			return a.with(cmd, o.run)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&o.vcpu, "vcpu", 0, "number `N` of virtual CPUs")
	flags.StringVar(&o.memory, "memory", "", "`SIZE` of the memory, as in 2G; without a suffix MiB")
	flags.StringVar(&o.diskSize, "disk-size", "", "`SIZE` of the disk, as in 20G; it only grows")
	flags.BoolVar(&o.nat, "nat", false, "let it reach the internet")
	flags.BoolVar(&o.noNAT, "no-nat", false, "let it reach only what --allow names")
	flags.StringArrayVar(&o.allow, "allow", nil, "let it reach `HOST[:PORT]` too")
	flags.BoolVar(&o.noAllow, "no-allow", false, "forget what --allow has named")
	registerOverlaySize(cmd)
	flags.BoolVar(&o.dryRun, "dry-run", false, "only say what would change")
	return cmd
}

func (o *setOptions) check(cmd *cobra.Command) (err error) {
	given := cmd.Flags().Changed
	switch {
	case o.nat && o.noNAT:
		return badUsage("--nat and --no-nat contradict each other")
	case given("vcpu") && o.vcpu < 1:
		return badUsage("bad number of virtual CPUs %d: it must be at least 1", o.vcpu)
	case !given("vcpu") && o.memory == "" && o.diskSize == "" && !given("nat") && !o.noNAT && len(o.allow) == 0 && !o.noAllow && !given(overlaySize):
		return badUsage("nothing is to be changed").Hint("banger vm set %s --nat", o.refs[0])
	}
	o.app.ignoreOverlaySize(cmd)
	o.req = api.SetVM{VCPU: o.vcpu, NoAllow: o.noAllow, Allow: o.allow, DryRun: o.dryRun}
	if given("nat") || o.noNAT {
		nat := o.nat
		o.req.NAT = &nat
	}
	if _, err := reach.ParsePolicy(false, o.allow); err != nil {
		return err
	}
	if o.req.MemoryMiB, err = memoryMiB(o.memory); err != nil {
		return err
	}
	o.req.DiskBytes, err = diskBytes(o.diskSize)
	return err
}

func (o *setOptions) run(ctx context.Context, c *client.Client) error {
	return o.app.each(ctx, c, o.refs, func(ctx context.Context, vm api.VM, _ *progress) error {
		v, err := c.SetVM(ctx, vm.ID, o.req)
		if err != nil {
			return err
		}
		for _, w := range v.Warnings {
			o.app.warn("%s", w)
		}
		for _, change := range v.Changes {
			if o.dryRun {
				change = "would change " + change
			}
			o.app.say("%s: %s", vm.Name, change)
		}
		if len(v.Changes) == 0 {
			o.app.say("%s: nothing changes", vm.Name)
		}
		return nil
	})
}

// remedy is how a VM without a network gets one.
func remedy(vm api.VM) string { return "banger vm set " + vm.Name + " --nat" }

// networkNotice is what an interactive shell opens with, "" where something may leave.
func networkNotice(vm api.VM) string {
	if vm.Spec.NetworkMode() != banger.NetworkNone {
		return ""
	}
	return fmt.Sprintf("network: none (%s)", remedy(vm))
}
