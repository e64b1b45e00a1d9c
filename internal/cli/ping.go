package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"banger/client"
)

func newPing(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "ping <vm>",
		Short:             "Ask a guest's agent for an answer and say how long it took",
		Example:           `  banger vm ping devbox`,
		Args:              exactly("VM"),
		ValidArgsFunction: a.completeVMs(one, live),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error { return a.ping(ctx, c, args[0]) })
		},
	}
}

func (a *app) ping(ctx context.Context, c *client.Client, ref string) error {
	vm, sh, err := a.reach(ctx, c, ref)
	if err != nil {
		return err
	}
	defer sh.Close()
	begun := time.Now()
	if _, err := sh.Guest().Health(ctx); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.Out, "%s answered in %.1fms\n", vm.Name, float64(time.Since(begun).Microseconds())/1000)
	return err
}
