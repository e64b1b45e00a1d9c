package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
)

// statsEvery is how often --watch takes a sample.
const statsEvery = 2 * time.Second

type statsOptions struct {
	app   *app
	ref   string
	watch bool
}

func newStats(a *app) *cobra.Command {
	o := &statsOptions{app: a}
	cmd := &cobra.Command{
		Use:   "stats <vm>",
		Short: "Sample what a VM uses, as JSON",
		Example: `  banger vm stats devbox
  banger vm stats --watch devbox`,
		Args:              exactly("VM"),
		ValidArgsFunction: a.completeVMs(one, live),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.ref = args[0]
			return a.with(cmd, o.run)
		},
	}
	cmd.Flags().BoolVar(&o.watch, "watch", false, "print a table row every two seconds until Ctrl-C")
	cmd.Flags().Bool("json", true, "print JSON; the default without --watch")
	return cmd
}

func (o *statsOptions) run(ctx context.Context, c *client.Client) error {
	vm, err := c.VM(ctx, o.ref)
	if err != nil {
		return err
	}
	if o.watch {
		return o.follow(ctx, c, vm.ID)
	}
	s, err := c.Stats(ctx, vm.ID)
	if err != nil {
		return err
	}
	return o.app.json(s)
}

// Columns of --watch. Rows come one by one, so their widths are fixed.
const statsRow = "%-8s  %7s  %8s  %15s  %15s  %6s  %5s\n"

func (o *statsOptions) follow(ctx context.Context, c *client.Client, id string) error {
	fmt.Fprintf(o.app.Out, statsRow, "TIME", "CPU", "RESIDENT", "MEMORY", "DISK", "LOAD", "PROCS")
	tick := time.NewTicker(statsEvery)
	defer tick.Stop()
	var last banger.Stats
	for {
		s, err := c.Stats(ctx, id)
		if err != nil {
			return err
		}
		fmt.Fprintf(o.app.Out, statsRow, s.SampledAt.Local().Format(time.TimeOnly), cpuShare(last, s),
			banger.ApproxSize(s.ResidentBytes), share(s.GuestMemUsed, s.GuestMemTotal), share(s.GuestDiskUsed, s.GuestDiskTotal),
			fmt.Sprintf("%.2f", s.GuestLoad1), fmt.Sprint(s.GuestProcs))
		if err := o.app.flush(); err != nil {
			return err
		}
		last = s
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// cpuShare is the host CPU time between two samples, in per cent of one CPU.
func cpuShare(last, s banger.Stats) string {
	span := s.SampledAt.Sub(last.SampledAt).Seconds()
	if last.SampledAt.IsZero() || span <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*(s.CPUSeconds-last.CPUSeconds)/span)
}

func share(used, total int64) string {
	return banger.ApproxSize(used) + "/" + banger.ApproxSize(total)
}
