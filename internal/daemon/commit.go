package daemon

import (
	"context"
	"io"
	"path"
	"slices"
	"strings"

	"banger"
	"banger/internal/api"
	"banger/internal/guestwire"
	"banger/internal/image"
	"banger/internal/shim"
	"banger/internal/vm"
)

// ownOfVM is what no image takes from a VM: what is there for a while, what tells two
// machines apart, and keys that banger or the guest's first boot made. Keys that
// somebody put elsewhere are files like others.
var ownOfVM = []string{
	"/tmp", "/var/tmp", "/run", "/var/lib/docker", "/var/lib/containerd", "/var/lib/containers",
	"/etc/machine-id", "/var/lib/dbus/machine-id", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf",
	"/etc/ssh/ssh_host_rsa_key", "/etc/ssh/ssh_host_ecdsa_key", "/etc/ssh/ssh_host_ed25519_key",
	"/etc/ssh/ssh_host_rsa_key.pub", "/etc/ssh/ssh_host_ecdsa_key.pub", "/etc/ssh/ssh_host_ed25519_key.pub",
	"/var/lib/systemd/random-seed", "/var/lib/urandom/random-seed", "/var/lib/systemd/credential.secret",
	"/root/.ssh", "/lost+found", "/.banger",
}

func (d *daemon) commitImage(ctx context.Context, in *toRef[api.CommitImage]) (job, error) {
	ask := or(in.Body)
	if err := banger.ValidateImageName(ask.Name); err != nil {
		return job{}, err
	}
	row, err := d.findVM(ctx, in.Ref)
	if err != nil {
		return job{}, err
	}
	view, err := d.vms.Get(ctx, row.ID)
	if err == nil {
		err = banger.Wrap(vm.RefuseVisit(view), "cannot make an image of VM %s", row.Name)
	}
	return job{ask.Name, func(ctx context.Context, op *operation) (any, error) {
		made, err := d.images.add(ctx, ask.Name, func() (banger.Image, error) { return d.commit(ctx, row, ask, op) })
		if err != nil {
			return nil, banger.Wrap(err, "cannot make an image of VM %s", row.Name)
		}
		return d.describeImage(ctx, made)
	}}, err
}

// commit has the VM's own kernel read its disk.
func (d *daemon) commit(ctx context.Context, row banger.VM, ask api.CommitImage, op *operation) (made banger.Image, err error) {
	was, err := d.images.store.Image(ctx, row.ImageID)
	if err != nil {
		return made, err
	}
	_, of, err := image.Load(d.images.recordDir(was))
	if err != nil {
		return made, err
	}
	without, err := d.without(row, ask.WithWorkspace)
	if err != nil {
		return made, err
	}
	err = d.vms.Visit(ctx, row.ID, op, func(ctx context.Context) error {
		client, err := shim.Dial(ctx, d.dirs.VM(row.ID))
		if err != nil {
			return err
		}
		defer client.Close()
		made, err = d.images.builder.Commit(ctx, ask.Name, of, "VM "+row.Name+", of "+was.Name, func(use func(io.Reader) error) error {
			return client.Guest().Get(ctx, guestwire.Copy{Path: "/", Name: ".", KeepOwner: true, OneSystem: true, Without: without}, use)
		}, op.Stage)
		return err
	})
	if err == nil {
		op.Warn("left out: " + strings.Join(without, ", "))
	}
	return made, err
}

// without lists what an image of this VM leaves out. What the configuration says
// of files now may be other than what it said when they were brought.
func (d *daemon) without(row banger.VM, withWorkspace bool) ([]string, error) {
	conf, _, err := d.config()
	if err != nil {
		return nil, err
	}
	without := slices.Concat(ownOfVM, row.Spec.Synced)
	for _, f := range conf.FileSync {
		if !slices.Contains(without, f.Guest) {
			without = append(without, f.Guest)
		}
	}
	if row.Workspace.GuestPath != "" && !withWorkspace {
		without = append(without, path.Clean(row.Workspace.GuestPath))
	}
	return without, nil
}
