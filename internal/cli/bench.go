package cli

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/api"
	"banger/internal/bench"
	"banger/internal/paths"
	"banger/internal/shim"
	"banger/internal/template"
)

type benchOptions struct {
	app   *app
	n     int
	image string
	json  bool
}

func newBench(a *app) *cobra.Command {
	o := &benchOptions{app: a}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure how fast banger is on this machine",
		Long: `Measure a cold run, a warm one, a command in a VM that runs, and a fork of it up to the end of its
first command, each as often as --n says. FLOOR is the median of the same done by hand in turn with it:
the VMM driven directly, without daemon, shim and CLI; RATIO is how much more banger takes.

It takes some minutes without hardware virtualisation. Everything it makes goes when it ends, also
after Ctrl-C.`,
		Example: `  banger bench
  banger bench --n 30 --json`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.n < 1 {
				return badUsage("bad --n %d: it must be at least 1", o.n)
			}
			return a.with(cmd, o.run)
		},
	}
	cmd.Flags().IntVar(&o.n, "n", 10, "do each thing `N` times")
	cmd.Flags().StringVar(&o.image, "image", "", "measure VMs of `IMAGE` (default: default_image_name of the configuration)")
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	_ = cmd.RegisterFlagCompletionFunc("image", a.completeImages)
	return cmd
}

// run makes the VM that is measured. It is ours for as long as we live.
func (o *benchOptions) run(ctx context.Context, c *client.Client) error {
	p := o.app.progress()
	defer p.end()
	name := "bench-" + banger.ShortID(banger.NewID())
	vm, err := c.CreateVM(ctx, api.CreateVM{Name: name, Image: o.image, Ephemeral: true, Start: true, Access: access()}, p.watch)
	if err != nil {
		return err
	}
	defer func() {
		if err := (&launch{app: o.app, client: c, vm: vm}).remove(); err != nil {
			o.app.warn("cannot delete the VM %s: %v", name, err)
		}
	}()
	sh, err := shim.Dial(ctx, paths.VM(vm.Dir))
	if err != nil {
		return err
	}
	defer sh.Close()
	if err := sh.Own(ctx); err != nil {
		return err
	}
	o.app.say("%s", specLine(vm))
	b, err := o.bench(vm, p)
	if err != nil {
		return err
	}
	figures, err := b.Measure(ctx)
	p.end()
	if len(figures) > 0 && ctx.Err() == nil {
		if shown := o.show(vm, figures); err == nil {
			err = shown
		}
	}
	return banger.Wrap(err, "cannot measure")
}

func (o *benchOptions) bench(vm api.VM, p *progress) (*bench.Bench, error) {
	dirs, err := paths.FromEnv()
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b := &bench.Bench{
		Exe: exe, N: o.n, VM: vm.Name, Dir: paths.VM(vm.Dir), Begin: p.say,
		Cache: template.Cache{Dir: dirs.Templates()},
	}
	if o.image != "" {
		b.Run = []string{"--image", o.image}
	}
	return b, nil
}

func (o *benchOptions) show(vm api.VM, figures []bench.Figure) error {
	if o.json {
		return o.app.json(struct {
			VMM     string         `json:"vmm"`
			Accel   string         `json:"accel"`
			Figures []bench.Figure `json:"figures"`
		}{vm.Runtime.VMM, vm.Runtime.Accel, figures})
	}
	t := newTable("WHAT", "N", "P50", "P99", "FLOOR", "RATIO")
	for _, f := range figures {
		ms := func(v float64) string { return fmt.Sprintf("%.1fms", v) }
		t.row(f.What, fmt.Sprint(f.N), ms(f.P50), ms(f.P99), ms(f.FloorP50), fmt.Sprintf("%.2f", f.Ratio))
	}
	o.app.print(t)
	return nil
}
