package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/doctor"
	"banger/internal/paths"
)

type doctorOptions struct {
	app                        *app
	asJSON, fix, verify, force bool
}

func newDoctor(a *app) *cobra.Command {
	o := &doctorOptions{app: a}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check this host and banger's own files; exit with 1 where something is broken",
		Long: `Check what banger needs of this host and what it keeps, with a remedy for what is not right. Every
row, directory, process and socket of VMs is accounted for. Nothing is changed, and no daemon is started.

--fix says what it would repair, asks, and repairs it by way of the daemon. What it does not know it leaves
alone. --verify reads all images, kernels, templates and saved machines and compares their digests.`,
		Example: `  banger doctor
  banger doctor --verify
  banger doctor --fix
  banger doctor --json | jq -r '.[] | select(.verdict != "PASS") | .name'`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := cancelOnSignal(cmd.Context())
			defer stop()
			return interrupted(ctx, o.run(ctx))
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.asJSON, "json", false, "print JSON")
	flags.BoolVar(&o.fix, "fix", false, "repair what can be repaired, after asking")
	flags.BoolVar(&o.verify, "verify", false, "read everything that has a digest and compare")
	flags.BoolVarP(&o.force, "force", "f", false, "with --fix: do not ask")
	return cmd
}

func (o *doctorOptions) run(ctx context.Context) error {
	if o.force && !o.fix {
		return badUsage("-f means nothing without --fix")
	}
	dirs, err := paths.FromEnv()
	if err != nil {
		return err
	}
	rows := o.check(ctx, dirs)
	if err := ctx.Err(); err != nil { // what was found is not what there is
		return err
	}
	if plan := doctor.Plan(rows); o.fix && len(plan) > 0 {
		if rows, err = o.repair(ctx, dirs, rows, plan); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if o.asJSON {
		err = o.app.json(rows)
	} else {
		o.app.printRows(rows)
	}
	if err == nil && doctor.Failed(rows) {
		err = statusError(exitFailed)
	}
	return err
}

func (o *doctorOptions) check(ctx context.Context, dirs paths.Dirs) []doctor.Row {
	opts := doctor.Options{Verify: o.verify, Daemon: o.app.askDaemon, Self: "/proc/self/exe"}
	if o.verify {
		p := o.app.progress()
		defer p.end()
		opts.Stage = p.say
	}
	return doctor.Check(ctx, dirs, opts)
}

// answerLimit bounds what a daemon may take to say how it is.
const answerLimit = 5 * time.Second

// askDaemon asks the daemon that runs, and starts none.
func (a *app) askDaemon(ctx context.Context) *doctor.Daemon {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	c, err := a.find(ctx)
	if err != nil {
		return nil
	}
	defer c.Close()
	v, err := c.Version(ctx)
	if err != nil {
		return nil
	}
	d := &doctor.Daemon{Version: v.Version, Build: v.BuildID}
	operations, _ := c.Operations(ctx)
	for _, op := range operations {
		if op.EndedAt.IsZero() {
			d.Busy = append(d.Busy, op.Kind)
		}
	}
	return d
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
