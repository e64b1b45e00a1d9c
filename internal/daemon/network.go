package daemon

import (
	"context"

	"banger"
	"banger/internal/api"
	"banger/internal/shim"
	"banger/internal/vm"
)

// warnings are a Progress whose stages nobody waits for.
type warnings []string

func (*warnings) Stage(string)    {}
func (w *warnings) Warn(m string) { *w = append(*w, m) }

func (d *daemon) setVM(ctx context.Context, in *struct {
	Ref  string `path:"ref"`
	Body api.SetVM
}) (api.ChangedVM, error) {
	var w warnings
	var changes []string
	v, err := d.withVM(ctx, in.Ref, func(row banger.VM) (view vm.View, err error) {
		view, changes, err = d.vms.Set(ctx, row.ID, vm.Set(in.Body), &w)
		return view, err
	})
	return api.ChangedVM{VM: v, Changes: list(changes), Warnings: list([]string(w))}, err
}

func (d *daemon) vmPorts(ctx context.Context, in *ofRef) ([]banger.Port, error) {
	row, err := d.findVM(ctx, in.Ref)
	if err != nil {
		return nil, err
	}
	all, err := d.vms.Ports(ctx, row.ID)
	return list(all), err
}

func (d *daemon) vmNetwork(ctx context.Context, in *ofRef) (api.Network, error) {
	row, err := d.findVM(ctx, in.Ref)
	if err != nil {
		return api.Network{}, err
	}
	n, err := d.vms.Network(ctx, row.ID)
	return networkOf(row.Name, n), err
}

func networkOf(name string, n shim.NetworkReport) api.Network {
	out := api.Network{
		VM: name, NAT: n.NAT, Allow: list(n.Allow), Destinations: []api.Destination{}, Counters: n.Counters, Learned: list(n.Learned),
	}
	for _, r := range n.Records {
		d := api.Destination{
			Protocol: r.Protocol, Name: r.Name, Port: r.Port, Open: r.Open, Allowed: r.Allowed, Refused: r.Refused, Failed: r.Failed,
			SentBytes: r.Sent, ReceivedBytes: r.Received, Why: r.Why, Rule: r.Rule, First: r.First, Last: r.Last,
		}
		if r.Addr.IsValid() {
			d.Address = r.Addr.String()
		}
		out.Destinations = append(out.Destinations, d)
	}
	return out
}
