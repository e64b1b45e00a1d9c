package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger/client"
)

func newConfig(a *app) *cobra.Command {
	return newGroup(a, "config", "The configuration", newConfigShow(a))
}

func newConfigShow(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "show",
		Short:   "Show every key, its value and where that is from",
		Example: `  banger config show`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				config, err := c.Config(ctx)
				if err != nil {
					return err
				}
				for _, w := range config.Warnings {
					a.warn("%s", w)
				}
				if asJSON {
					return a.json(config)
				}
				t := newTable("KEY", "VALUE", "ORIGIN")
				for _, s := range config.Settings {
					t.row(s.Key, s.Value, s.Origin)
				}
				a.print(t)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
