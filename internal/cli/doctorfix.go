package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"banger"
	"banger/client"
	"banger/internal/api"
	"banger/internal/doctor"
	"banger/internal/paths"
)

// repair carries out a plan that was agreed to and gives what there is to say
// afterwards.
func (o *doctorOptions) repair(ctx context.Context, dirs paths.Dirs, rows []doctor.Row, plan []doctor.Fix) ([]doctor.Row, error) {
	a := o.app
	for _, r := range rows {
		if r.Fix != nil {
			a.say("%s: %s", r.Name, oneLine(r.Detail))
		}
	}
	for _, f := range plan {
		a.say("to be done: %s", f.Does)
	}
	if ok, err := o.agreed(ctx, len(plan)); err != nil || !ok {
		return rows, err
	}
	for _, f := range plan {
		if err := a.carryOut(ctx, dirs, f); err != nil {
			a.fail(banger.Wrap(err, "cannot %s", f.Does))
		}
		if ctx.Err() != nil {
			return rows, context.Cause(ctx)
		}
	}
	a.say("checking again")
	return o.check(ctx, dirs), nil
}

func (o *doctorOptions) agreed(ctx context.Context, n int) (bool, error) {
	if o.force {
		return true, nil
	}
	if !o.app.asks() {
		return false, badUsage("cannot ask whether to carry out %d repairs: there is no terminal", n).
			Hint("banger doctor --fix -f carries them out without asking")
	}
	ok, err := o.app.ask(ctx, fmt.Sprintf("carry out these %d repairs?", n))
	if err == nil && !ok {
		o.app.say("nothing was repaired")
	}
	return ok, err
}

// carryOut does one repair, by the way that exists for it.
func (a *app) carryOut(ctx context.Context, dirs paths.Dirs, f doctor.Fix) error {
	if f.Action == doctor.Chmod {
		return hide(f.Subject)
	}
	if f.Action == doctor.RestartDaemon {
		if err := a.stopDaemon(ctx); err != nil {
			return err
		}
	}
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	p := a.progress()
	defer p.end()
	return a.askFor(ctx, c, f, p)
}

func (a *app) askFor(ctx context.Context, c *client.Client, f doctor.Fix, p *progress) (err error) {
	switch f.Action {
	case doctor.RestartDaemon:
		_, err = c.Version(ctx) // it has started, and put right what it could
	case doctor.DeleteVM:
		err = c.DeleteVM(ctx, f.Subject, true)
	case doctor.RebuildImage:
		_, err = c.PullImage(ctx, api.PullImage{Ref: f.Subject, Force: true, Access: access()}, p.watch)
	case doctor.PullKernel:
		_, err = c.PullKernel(ctx, api.PullKernel{Name: f.Subject, As: f.As, Force: true, Access: access()}, p.watch)
	case doctor.DeleteKernel:
		err = c.DeleteKernel(ctx, f.Subject)
	case doctor.PruneTemplates:
		_, err = c.PruneCache(ctx, api.PruneCache{})
	default:
		err = banger.Errorf(banger.BadRequest, "this banger does not know how")
	}
	return err
}

// stopDaemon ends the daemon where one runs, unless it is busy.
func (a *app) stopDaemon(ctx context.Context) error {
	c, err := a.find(ctx)
	if banger.CodeOf(err) == banger.Unavailable {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.Close()
	return c.StopDaemon(ctx, false)
}

// hide takes from a file or directory of ours what others may do with it.
func hide(path string) error {
	f, err := os.OpenFile(path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || int(st.Uid) != os.Getuid() || info.Mode()&os.ModeSymlink != 0 {
		return errors.Join(err, banger.Errorf(banger.Unauthorized, "%s is not yours", path))
	}
	return os.Chmod(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), info.Mode().Perm()&^0o077)
}
