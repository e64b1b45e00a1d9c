package daemon

import (
	"context"

	"banger"
	"banger/internal/api"
	"banger/internal/paths"
	"banger/internal/vm"
)

// sshVM makes what is missing of a VM's keys. It does not start or wake the VM.
func (d *daemon) sshVM(ctx context.Context, in *ofRef) (api.SSH, error) {
	keys, err := d.sshKeys(ctx, nil)
	if err != nil {
		return api.SSH{}, err
	}
	v, err := d.withVM(ctx, in.Ref, func(row banger.VM) (vm.View, error) { return d.vms.HostKey(ctx, row.ID) })
	return api.SSH{SSHKeys: keys, VM: v, HostKey: paths.VM(v.Dir).HostKey()}, err
}

// sshKeys makes the user's key where there is none.
func (d *daemon) sshKeys(context.Context, *none) (api.SSHKeys, error) {
	c, _, err := d.config()
	if err != nil {
		return api.SSHKeys{}, err
	}
	user, err := d.keys.User(c.SSHKeyPath)
	if err != nil {
		return api.SSHKeys{}, err
	}
	return api.SSHKeys{KnownHosts: d.dirs.KnownHosts(), Identity: user.Path, UserKey: user.Key}, nil
}
