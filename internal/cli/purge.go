package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"banger/client"
	"banger/internal/paths"
)

// purgeOptions is the removal of everything that is banger's.
type purgeOptions struct {
	app   *app
	dirs  paths.Dirs
	force bool
}

func (p *purgeOptions) agreed(ctx context.Context) (bool, error) {
	if p.force {
		return true, nil
	}
	if !p.app.asks() {
		return false, badUsage("cannot ask whether to remove everything: there is no terminal").
			Hint("banger system uninstall --purge -f removes it without asking")
	}
	ok, err := p.app.ask(ctx, "remove all VMs with their disks, all images and kernels in "+p.dirs.State+"?")
	if err == nil && !ok {
		p.app.say("nothing was removed")
	}
	return ok, err
}

// run has the daemon delete what it knows, ends it, and removes the rest by name:
// what has none here is not ours and stays.
func (p *purgeOptions) run(ctx context.Context) error {
	if err := removeOurSSHConfig(); err != nil {
		return err
	}
	if _, err := os.Stat(p.dirs.State); errors.Is(err, fs.ErrNotExist) {
		return os.RemoveAll(p.dirs.Cache)
	}
	if err := p.deleteKnown(ctx); err != nil {
		return err
	}
	var all error
	for _, path := range p.owned() {
		all = errors.Join(all, os.RemoveAll(path))
	}
	for _, dir := range []string{p.dirs.VMs(), p.dirs.Images(), p.dirs.State, p.dirs.Runtime} {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			p.app.warn("%s stays: it holds what is not banger's", dir)
		}
	}
	if _, err := os.Stat(p.dirs.ConfigFile()); err == nil {
		p.app.say("your configuration stays: %s", p.dirs.ConfigFile())
	}
	return all
}

func (p *purgeOptions) deleteKnown(ctx context.Context) error {
	c, err := p.app.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := deleteAll(ctx, c); err != nil {
		return err
	}
	return c.StopDaemon(ctx, true)
}

func deleteAll(ctx context.Context, c *client.Client) error {
	vms, err := c.VMs(ctx)
	for _, vm := range vms {
		err = errors.Join(err, c.DeleteVM(ctx, vm.ID, true))
	}
	if err != nil {
		return err
	}
	images, err := c.Images(ctx)
	for _, image := range images {
		err = errors.Join(err, c.DeleteImage(ctx, image.ID))
	}
	return err
}

// owned are the names in banger's directories that only banger gives.
func (p *purgeOptions) owned() []string {
	d := p.dirs
	all := []string{d.Cache, d.Kernels(), d.Keys(), d.Applies(), d.VMTrash(), d.ImageTrash(), d.DaemonLock(), d.DaemonStart()}
	for _, pattern := range []string{d.Database() + "*", d.DaemonLog() + "*", filepath.Join(d.Images(), ".lock-*")} {
		found, _ := filepath.Glob(pattern)
		all = append(all, found...)
	}
	return all
}
