package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"banger/client"
	"banger/internal/api"
)

type createOptions struct {
	app     *app
	shape   shapeFlags
	noStart bool
	json    bool
}

func newCreate(a *app) *cobra.Command {
	o := &createOptions{app: a}
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Create a VM and start it",
		Long: `Create a VM, start it, wait until its guest is ready, and print its name. It takes no repository:
"banger run -d PATH" brings one in.`,
		Example: `  banger vm create --name devbox --memory 4G
  banger vm create --no-start`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			req, err := o.shape.request(o.app, cmd)
			if err != nil {
				return err
			}
			req.Start, req.Wait = !o.noStart, !o.noStart
			return a.with(cmd, func(ctx context.Context, c *client.Client) error { return o.run(ctx, c, req) })
		},
	}
	o.shape.register(a, cmd)
	cmd.Flags().BoolVar(&o.noStart, "no-start", false, "create it only")
	cmd.Flags().BoolVar(&o.json, "json", false, "print the VM as JSON")
	return cmd
}

func (o *createOptions) run(ctx context.Context, c *client.Client, req api.CreateVM) error {
	p := o.app.progress()
	defer p.end()
	vm, err := c.CreateVM(ctx, req, p.watch)
	if err != nil {
		return err
	}
	took := p.end()
	o.app.say("%s", specLine(vm))
	if req.Start {
		o.app.say("ready in %s", elapsed(took))
	}
	if o.json {
		return o.app.json(vm)
	}
	_, err = fmt.Fprintln(o.app.Out, vm.Name)
	return err
}
