package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"

	"banger"
	"banger/internal/artifact"
	"banger/internal/config"
	"banger/internal/guestbin"
	"banger/internal/hostca"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/loopback"
	"banger/internal/oci"
	"banger/internal/service"
	"banger/internal/shim"
	"banger/internal/sshkeys"
	"banger/internal/store"
	"banger/internal/template"
	"banger/internal/vm"
)

// compose builds the house from the ground up; release takes it down in the
// opposite order.
func (d *daemon) compose(ctx context.Context, log io.Writer, vms func(*daemon) vm.Service) (release func(), err error) {
	settings := config.NewSource(d.dirs.ConfigFile())
	level := new(slog.LevelVar)
	d.log = newLogger(log, level)
	d.config = func() (config.Config, []config.Warning, error) {
		c, warnings, err := settings.Current()
		if err == nil {
			_ = level.UnmarshalText([]byte(c.LogLevel))
		}
		return c, warnings, err
	}
	_, _, _ = d.config() // a wrong one fails commands, not the daemon, which has to be there to say so
	d.faults = faults{d.log, d.dirs.DaemonLog()}
	d.operations = &operations{log: d.log, fault: d.faults.of}

	rows, err := store.Open(ctx, d.dirs.Database())
	if err != nil {
		return nil, err
	}
	d.rows = rows
	d.keys = &sshkeys.Keys{Dirs: d.dirs}
	d.images = &images{store: rows, builder: image.Builder{Dir: d.dirs.Images(), Cache: oci.Cache{Dir: d.dirs.OCI()}}, dirs: d.dirs}
	d.kernels = kernel.NewStore(d.dirs.Kernels(), d.dirs.Downloads())
	// Not the executable's path, which may lead to a newer file by now.
	shims := &shim.Starter{Exe: "/proc/self/exe", Args: []string{"shim"}}
	if service.Holds(os.Getpid()) {
		d.scopes = &scopes{ctx: ctx, vms: d.dirs.VMs(), move: service.Manager{}.Scope, inside: service.Holds, log: d.log}
		shims.Started = d.scopes.started
	}
	if vms == nil {
		vms = func(d *daemon) vm.Service { return d.machines(ctx, rows, shims) }
	}
	d.templates = &templates{Pool: template.Pool{Cache: template.Cache{Dir: d.dirs.Templates()}}, exe: "/proc/self/exe", log: d.log}
	d.loopback = &prefixes{stateDir: d.dirs.State, space: loopback.Usual}
	d.sweep()
	if err := d.images.takeUp(ctx, d.log); err != nil { // before the VMs that are of them
		d.log.Error("cannot take up images that have no row", "err", err)
	}
	d.vms = vms(d)
	if err := d.vms.Reconcile(ctx); err != nil {
		d.templates.Close()
		d.loopback.Close()
		shims.Close()
		return nil, errors.Join(err, rows.Close())
	}
	d.scopes.takeOut()
	return func() {
		d.scopes.close()
		d.templates.Close()
		shims.Close()
		if err := rows.Close(); err != nil {
			d.log.Error("cannot close the database", "error", err)
		}
	}, nil
}

// sweep removes what a crash left of images, kernels and templates. Reconcile
// does so for VMs.
func (d *daemon) sweep() {
	err := errors.Join(os.RemoveAll(d.dirs.ImageTrash()), d.images.builder.Sweep(), d.kernels.Sweep(), d.templates.Cache.Sweep(),
		artifact.ClearStale(d.dirs.Cache))
	if err != nil {
		d.log.Warn("cannot remove what was not finished", "error", err)
	}
}

func (d *daemon) machines(ctx context.Context, rows *store.Store, shims *shim.Starter) vm.Service {
	choice := &chooser{d: d}
	return vm.New(vm.Deps{
		Store: rows, Images: d.images, Kernels: d.kernels, Shims: vm.ShimsOf(shims),
		Dirs: d.dirs, Log: d.log, Config: d.config,
		Choose:    choice.choose,
		Initramfs: new(initramfs).of,
		Trust:     func() ([]byte, []string) { return hostca.Read(hostca.Usual) },
		Templates: d.templates, HostKeys: d.keys, Loopback: d.loopback,
		Ending: ctx.Done(),
	})
}

// initramfs packs the agent for a kernel, unless that was done before.
// initramfs remembers what it made: to find that out again takes reading it.
type initramfs struct {
	mu   sync.Mutex
	made map[string]madeInitramfs // by the kernel's digest
}

type madeInitramfs struct {
	path, digest string
	is           os.FileInfo
}

func (i *initramfs) of(ctx context.Context, k banger.Kernel) (path, digest string, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if m, known := i.made[k.Digest]; known {
		if now, err := os.Stat(m.path); err == nil && os.SameFile(now, m.is) && now.ModTime().Equal(m.is.ModTime()) && now.Size() == m.is.Size() {
			return m.path, m.digest, nil
		}
	}
	path, digest, err = makeInitramfs(ctx, k)
	if err != nil {
		return "", "", err
	}
	is, err := os.Stat(path)
	if err != nil {
		return "", "", err
	}
	if i.made == nil {
		i.made = map[string]madeInitramfs{}
	}
	i.made[k.Digest] = madeInitramfs{path, digest, is}
	return path, digest, nil
}

func makeInitramfs(ctx context.Context, k banger.Kernel) (path, digest string, err error) {
	agent, err := guestbin.Binary()
	if errors.Is(err, guestbin.ErrMissing) {
		return "", "", banger.Errorf(banger.Unavailable, "cannot make an initramfs: %w", err).Hint("make build")
	} else if err != nil {
		return "", "", err
	}
	return kernel.Initramfs(ctx, k, agent)
}
