package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/api"
)

type portsOptions struct {
	app  *app
	json bool
}

func newPorts(a *app) *cobra.Command {
	o := &portsOptions{app: a}
	cmd := &cobra.Command{
		Use:   "ports <vm>...",
		Short: "Say where on this host is what listens in VMs",
		Long: `List the TCP ports that something listens on in VMs, whatever address it listens on there, and
where this host reaches them: at the same port of the VM's own loopback address, in every network
mode, and where -p published them. UDP is not forwarded. Any user of this host reaches those
addresses.`,
		Example: `  banger vm ports devbox
  curl $(banger vm ports devbox --json | jq -r '.[0].url')`,
		Args:              atLeastOne("VM"),
		ValidArgsFunction: a.completeVMs(many, live),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error { return o.run(ctx, c, args) })
		},
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

// vmPort is a port with whose it is.
type vmPort struct {
	VM string `json:"vm"`
	banger.Port
}

func (o *portsOptions) run(ctx context.Context, c *client.Client, refs []string) error {
	all, err := c.VMs(ctx)
	if err != nil {
		return err
	}
	targets := resolveTargets(refs, all)
	found := make(map[string]chan []banger.Port, len(targets))
	for _, t := range targets {
		found[t.vm.ID] = make(chan []banger.Port, 1)
	}
	o.app.actOn(ctx, targets, func(ctx context.Context, vm api.VM, _ *progress) error {
		list, err := c.Ports(ctx, vm.ID)
		found[vm.ID] <- list
		return err
	})
	ports := []vmPort{}
	for _, t := range targets {
		if t.err == nil {
			for _, p := range <-found[t.vm.ID] {
				ports = append(ports, vmPort{t.vm.Name, p})
			}
		}
	}
	if err := o.print(ports); err != nil {
		return err
	}
	return o.app.complain(ctx, targets)
}

func (o *portsOptions) print(ports []vmPort) error {
	if o.json {
		return o.app.json(ports)
	}
	t := newTable("VM", "GUEST", "PROCESS", "HOST")
	for _, p := range ports {
		t.row(p.VM, p.Address, processOf(p.Port), whereIs(p.Port))
	}
	o.app.print(t)
	return nil
}

func processOf(p banger.Port) string {
	if p.PID == 0 {
		return ""
	}
	return fmt.Sprintf("%s(%d)", p.Process, p.PID)
}

// whereIs is what one would open, or why one cannot.
func whereIs(p banger.Port) string {
	where := p.Published
	if p.URL != "" {
		where = append([]string{p.URL}, where...)
	}
	if len(where) == 0 {
		return "not forwarded: " + p.Reason
	}
	if p.Reason != "" {
		where = append(where, "("+p.Reason+")")
	}
	return strings.Join(where, " ")
}
