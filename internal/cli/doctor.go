package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"banger/internal/doctor"
	"banger/internal/paths"
)

func newDoctor(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check this host and banger's own files; exit with 1 where something is broken",
		Long: `Check what banger needs of this host and what it keeps, with a remedy for what is not right. Nothing
is changed, and no daemon is started.`,
		Example: `  banger doctor
  banger doctor --json | jq -r '.[] | select(.verdict != "PASS") | .name'`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context(), asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) doctor(ctx context.Context, asJSON bool) error {
	dirs, err := paths.FromEnv()
	if err != nil {
		return err
	}
	rows := doctor.Check(ctx, dirs)
	if asJSON {
		err = a.json(rows)
	} else {
		a.printRows(rows)
	}
	if err == nil && doctor.Failed(rows) {
		err = statusError(exitFailed)
	}
	return err
}

var verdictColours = map[doctor.Verdict]colour{doctor.Pass: green, doctor.Warn: yellow, doctor.Fail: red}

func (a *app) printRows(rows []doctor.Row) {
	width := 0
	for _, r := range rows {
		width = max(width, len(r.Name))
	}
	for _, r := range rows {
		fmt.Fprintf(a.Out, "%s  %-*s  %s\n", a.paintOut(verdictColours[r.Verdict], string(r.Verdict)), width, r.Name, oneLine(r.Detail))
		for _, remedy := range r.Remedies {
			fmt.Fprintf(a.Out, "%*s→ %s\n", len("PASS")+width+4, "", oneLine(remedy))
		}
	}
}
