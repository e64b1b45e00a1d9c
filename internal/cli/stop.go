package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"banger/client"
	"banger/internal/api"
)

// defaultStop is how long a guest's processes have to end.
const defaultStop = 10 * time.Second

type stopOptions struct {
	app     *app
	refs    []string
	timeout time.Duration
	req     api.StopVM
}

func newStop(a *app) *cobra.Command {
	o := &stopOptions{app: a}
	cmd := &cobra.Command{
		Use:   "stop <vm>...",
		Short: "Stop VMs in good order",
		Long: `Stop VMs: all processes get TERM, and KILL at half of the timeout; then the file systems are
synced and made read-only, and the machine ends. Nothing a guest has written is lost: a suspended VM
is resumed first.`,
		Example: `  banger stop devbox
  banger vm stop --timeout 1m db1 db2`,
		Args:              atLeastOne("VM"),
		ValidArgsFunction: a.completeVMs(many, wakes),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.with(cmd, args, o.run)
		},
	}
	o.register(cmd)
	return cmd
}

func (o *stopOptions) register(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&o.timeout, "timeout", defaultStop, "how much `TIME` processes have to end")
}

// with checks the flags before it connects.
func (o *stopOptions) with(cmd *cobra.Command, args []string, run func(context.Context, *client.Client) error) error {
	if o.timeout <= 0 {
		return badUsage("bad --timeout %s: it must be more than 0", o.timeout).
			Hint("banger vm kill ends a VM at once")
	}
	o.refs, o.req = args, api.StopVM{TimeoutSeconds: o.timeout.Seconds()}
	return o.app.with(cmd, run)
}

func (o *stopOptions) run(ctx context.Context, c *client.Client) error {
	return o.app.each(ctx, c, o.refs, func(ctx context.Context, vm api.VM, p *progress) error {
		_, err := c.StopVM(ctx, vm.ID, o.req, p.watch)
		return err
	})
}
