package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"banger/client"
)

type healthOptions struct {
	app  *app
	ref  string
	json bool
}

func newHealth(a *app) *cobra.Command {
	o := &healthOptions{app: a}
	cmd := &cobra.Command{
		Use:               "health <vm>",
		Short:             "Say whether a guest works; exit with 1 where it does not",
		Example:           `  banger vm health devbox`,
		Args:              exactly("VM"),
		ValidArgsFunction: a.completeVMs(one, live),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.ref = args[0]
			return a.with(cmd, o.run)
		},
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *healthOptions) run(ctx context.Context, c *client.Client) error {
	h, err := c.Health(ctx, o.ref)
	if err != nil {
		return err
	}
	if o.json {
		if err := o.app.json(h); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(o.app.Out, "%s, up %s\n", h.State, elapsed(time.Duration(h.UptimeSeconds*float64(time.Second))))
		for _, p := range h.Problems {
			fmt.Fprintln(o.app.Out, oneLine(p))
		}
	}
	if len(h.Problems) > 0 {
		return statusError(exitFailed)
	}
	return nil
}
