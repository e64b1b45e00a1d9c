package cli

import (
	"context"
	"errors"
	"sync"

	"github.com/spf13/cobra"

	"banger/client"
	"banger/internal/api"
)

type startOptions struct {
	app  *app
	refs []string
	cold bool

	trace bool
	json  bool
}

func newStart(a *app) *cobra.Command {
	o := &startOptions{app: a}
	cmd := &cobra.Command{
		Use:   "start <vm>...",
		Short: "Start VMs and wait until they are ready",
		Long: `Start VMs that were created, stopped or suspended, and wait until their guests are ready. A suspended
VM goes on where it was. One that never ran is a fork of a template where there is one; others boot
from their disks. A VM that runs is left as it is.`,
		Example: `  banger start devbox
  banger vm start $(banger vm list -q)
  banger vm start devbox --json | jq '.[].trace'`,
		Args:              atLeastOne("VM"),
		ValidArgsFunction: a.completeVMs(many, notLive),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.refs = args
			return a.with(cmd, o.run)
		},
	}
	cmd.Flags().BoolVar(&o.cold, "cold", false, "boot from the disk: without a template, and without the memory of a suspended VM")
	cmd.Flags().BoolVar(&o.trace, "trace", false, "say afterwards where the time went")
	cmd.Flags().BoolVar(&o.json, "json", false, "print the VMs as JSON, with where the time went")
	return cmd
}

func (o *startOptions) run(ctx context.Context, c *client.Client) error {
	if o.json {
		return o.runJSON(ctx, c)
	}
	return o.app.each(ctx, c, o.refs, func(ctx context.Context, vm api.VM, p *progress) error {
		_, err := o.start(ctx, c, vm, p)
		return err
	})
}

func (o *startOptions) start(ctx context.Context, c *client.Client, vm api.VM, p *progress) (api.VM, error) {
	t := newTrace()
	started, err := c.StartVM(ctx, vm.ID, api.StartVM{Cold: o.cold, Wait: true}, p.watch)
	if err == nil && o.trace && !vm.State.Live() {
		t.start(started.Trace)
		t.report(o.app.voice, "")
	}
	return started, err
}

// runJSON prints those that started, in the order given.
func (o *startOptions) runJSON(ctx context.Context, c *client.Client) error {
	all, err := c.VMs(ctx)
	if err != nil {
		return err
	}
	targets := resolveTargets(o.refs, all)
	var mu sync.Mutex
	byID := map[string]api.VM{}
	o.app.actOn(ctx, targets, func(ctx context.Context, vm api.VM, p *progress) error {
		started, err := o.start(ctx, c, vm, p)
		mu.Lock()
		defer mu.Unlock()
		byID[vm.ID] = started
		return err
	})
	started := []api.VM{}
	for _, t := range targets {
		if t.err == nil {
			started = append(started, byID[t.vm.ID])
		}
	}
	return errors.Join(o.app.json(started), o.app.complain(ctx, targets))
}
