package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/api"
)

type netOptions struct {
	app   *app
	ref   string
	json  bool
	learn bool
}

func newNet(a *app) *cobra.Command {
	o := &netOptions{app: a}
	cmd := &cobra.Command{
		Use:   "net <vm>",
		Short: "Show what a VM has reached and what it was refused",
		Long: `Show what a guest has asked for so far, before its last start too, the latest first, also of a VM that does not run: names that it
resolved (dns), and connections by name and port, or by address where no name led there. NEEDS is the
rule that allows it, for run, create and set.

With --learn, print the flags that everything so far needed, allowed or not.`,
		Example: `  banger vm net devbox
  banger vm set devbox $(banger vm net --learn devbox)`,
		Args:              exactly("VM"),
		ValidArgsFunction: a.completeVMs(one, anyState),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.ref = args[0]; o.json && o.learn {
				return badUsage("--json and --learn contradict each other: --json has it as learned")
			}
			return a.with(cmd, o.run)
		},
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	cmd.Flags().BoolVar(&o.learn, "learn", false, "print the --allow flags that everything so far needed")
	return cmd
}

func (o *netOptions) run(ctx context.Context, c *client.Client) error {
	n, err := c.Network(ctx, o.ref)
	if err != nil {
		return err
	}
	switch {
	case o.json:
		return o.app.json(n)
	case o.learn:
		for _, rule := range n.Learned {
			fmt.Fprintf(o.app.Out, "--allow %s\n", quoteWords([]string{rule}))
		}
		return nil
	}
	o.app.say("network: %s", banger.Spec{NAT: n.NAT, Allow: n.Allow}.NetworkWords())
	t := newTable("PROTO", "TO", "PORT", "VERDICT", "OPEN", "SENT", "RECEIVED", "NEEDS")
	for _, d := range n.Destinations {
		t.row(d.Protocol, destination(d), port(d.Port), verdict(d), fmt.Sprint(d.Open),
			banger.ApproxSize(int64(d.SentBytes)), banger.ApproxSize(int64(d.ReceivedBytes)), needs(d))
	}
	o.app.print(t)
	return nil
}

func destination(d api.Destination) string {
	if d.Name != "" {
		return d.Name
	}
	return d.Address
}

func port(n uint16) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// verdict says how often what became of it.
func verdict(d api.Destination) string {
	var words []string
	for _, v := range []struct {
		count uint64
		what  string
	}{{d.Allowed - d.Failed, "allowed"}, {d.Failed, "failed"}, {d.Refused, "refused"}} {
		if v.count > 0 {
			words = append(words, fmt.Sprintf("%s %d", v.what, v.count))
		}
	}
	return strings.Join(words, ", ")
}

func needs(d api.Destination) string {
	switch {
	case d.Rule != "":
		return "--allow " + d.Rule
	case d.Refused > 0:
		return "nothing allows it"
	}
	return ""
}
