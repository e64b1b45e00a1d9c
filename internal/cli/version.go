package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"banger/internal/build"
)

type versionOptions struct {
	app  *app
	json bool
}

func newVersion(a *app) *cobra.Command {
	o := &versionOptions{app: a}
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print version, commit and build time",
		Example: `  banger version`,
		Args:    exactly(),
		RunE:    func(*cobra.Command, []string) error { return o.run() },
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *versionOptions) run() error {
	if o.json {
		return o.app.json(map[string]string{
			"version": build.Version(), "commit": build.Commit(), "built_at": build.BuiltAt(), "build_id": build.ID(),
		})
	}
	_, err := fmt.Fprintf(o.app.Out, "banger %s (commit %s, built %s)\n", build.Version(), build.Commit(), build.BuiltAt())
	return err
}
