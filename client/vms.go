package client

import (
	"context"
	"net/http"
	"strconv"

	"banger"
	"banger/internal/api"
)

// VMs lists all VMs, oldest first.
func (c *Client) VMs(ctx context.Context) (all []api.VM, err error) {
	err = c.call(ctx, http.MethodGet, "/vms", nil, &all)
	return all, err
}

// VM finds a VM by reference.
func (c *Client) VM(ctx context.Context, ref string) (vm api.VM, err error) {
	err = c.vm(ctx, http.MethodGet, ref, "", nil, &vm)
	return vm, err
}

// CreateVM creates a VM.
func (c *Client) CreateVM(ctx context.Context, req api.CreateVM, on Watch) (vm api.VM, err error) {
	err = c.stream(ctx, "/vms", req, on, &vm)
	return vm, err
}

// ChangeVM changes what is not nil in req.
func (c *Client) ChangeVM(ctx context.Context, ref string, req api.ChangeVM) (vm api.VM, err error) {
	err = c.vm(ctx, http.MethodPatch, ref, "", req, &vm)
	return vm, err
}

// SetVM changes what a VM is and may reach, and says what changed.
func (c *Client) SetVM(ctx context.Context, ref string, req api.SetVM) (v api.ChangedVM, err error) {
	err = c.vm(ctx, http.MethodPost, ref, "/set", req, &v)
	return v, err
}

// Ports says where what listens in a guest is on the host.
func (c *Client) Ports(ctx context.Context, ref string) (all []banger.Port, err error) {
	err = c.vm(ctx, http.MethodGet, ref, "/ports", nil, &all)
	return all, err
}

// Network tells what a guest reached and what it was refused.
func (c *Client) Network(ctx context.Context, ref string) (n api.Network, err error) {
	err = c.vm(ctx, http.MethodGet, ref, "/net", nil, &n)
	return n, err
}

// DeleteVM deletes a VM; force also when it runs. One that is not there is no
// error.
func (c *Client) DeleteVM(ctx context.Context, ref string, force bool) error {
	return c.vm(ctx, http.MethodDelete, ref, "?force="+strconv.FormatBool(force), nil, nil)
}

// StartVM starts a VM.
func (c *Client) StartVM(ctx context.Context, ref string, req api.StartVM, on Watch) (vm api.VM, err error) {
	err = c.streamVM(ctx, ref, "/start", req, on, &vm)
	return vm, err
}

// StopVM stops a VM in good order.
func (c *Client) StopVM(ctx context.Context, ref string, req api.StopVM, on Watch) (vm api.VM, err error) {
	err = c.streamVM(ctx, ref, "/stop", req, on, &vm)
	return vm, err
}

// RestartVM stops a VM and starts it.
func (c *Client) RestartVM(ctx context.Context, ref string, req api.StopVM, on Watch) (vm api.VM, err error) {
	err = c.streamVM(ctx, ref, "/restart", req, on, &vm)
	return vm, err
}

// SuspendVM saves a VM's memory and frees its RAM; StartVM resumes it.
func (c *Client) SuspendVM(ctx context.Context, ref string, on Watch) (vm api.VM, err error) {
	err = c.streamVM(ctx, ref, "/suspend", nil, on, &vm)
	return vm, err
}

// ForkVM copies a VM as it is now: all copies or none.
func (c *Client) ForkVM(ctx context.Context, ref string, req api.ForkVM, on Watch) (f api.Forks, err error) {
	err = c.streamVM(ctx, ref, "/fork", req, on, &f)
	return f, err
}

// KillVM signals a VM's VMM: KILL, TERM or INT, KILL where empty.
func (c *Client) KillVM(ctx context.Context, ref, signal string) (vm api.VM, err error) {
	err = c.vm(ctx, http.MethodPost, ref, "/kill", api.KillVM{Signal: signal}, &vm)
	return vm, err
}

// PauseVM halts a VM's CPUs.
func (c *Client) PauseVM(ctx context.Context, ref string) (vm api.VM, err error) {
	err = c.vm(ctx, http.MethodPost, ref, "/pause", nil, &vm)
	return vm, err
}

// ResumeVM lets a paused VM's CPUs run.
func (c *Client) ResumeVM(ctx context.Context, ref string) (vm api.VM, err error) {
	err = c.vm(ctx, http.MethodPost, ref, "/resume", nil, &vm)
	return vm, err
}

// SSH sees that the keys for reaching a VM by SSH are there, and says where.
func (c *Client) SSH(ctx context.Context, ref string) (s api.SSH, err error) {
	err = c.vm(ctx, http.MethodPost, ref, "/ssh", nil, &s)
	return s, err
}

// SSHKeys sees that the user has a key for VMs, and says where.
func (c *Client) SSHKeys(ctx context.Context) (k api.SSHKeys, err error) {
	err = c.call(ctx, http.MethodPost, "/ssh", nil, &k)
	return k, err
}

// Health asks a guest how it is.
func (c *Client) Health(ctx context.Context, ref string) (h api.Health, err error) {
	err = c.vm(ctx, http.MethodGet, ref, "/health", nil, &h)
	return h, err
}

// Stats samples a VM now.
func (c *Client) Stats(ctx context.Context, ref string) (s banger.Stats, err error) {
	err = c.vm(ctx, http.MethodGet, ref, "/stats", nil, &s)
	return s, err
}

func (c *Client) vm(ctx context.Context, method, ref, rest string, in, out any) error {
	ref, err := c.named(ctx, ref)
	if err != nil {
		return err
	}
	return c.call(ctx, method, at("/vms", ref, rest), in, out)
}

func (c *Client) streamVM(ctx context.Context, ref, rest string, in any, on Watch, out any) error {
	ref, err := c.named(ctx, ref)
	if err != nil {
		return err
	}
	return c.stream(ctx, at("/vms", ref, rest), in, on, out)
}

func noReference(kind string) error {
	return banger.Errorf(banger.BadRequest, "cannot find a %s by an empty reference", kind)
}
