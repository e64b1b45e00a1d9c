package cli

import (
	"context"
	"fmt"
	"time"

	"banger"
	"banger/client"
	"banger/internal/api"
	"banger/internal/guestwire"
	"banger/internal/paths"
	"banger/internal/shim"
)

// undoLimit bounds what is done for a VM after the command, or Ctrl-C.
const undoLimit = 30 * time.Second

// launch is one run: a new VM and the command in it.
type launch struct {
	app     *app
	create  api.CreateVM
	request guestwire.Exec
	timeout time.Duration
	trace   *trace
	json    bool // print the VM, not its name

	bring *bringing  // a repository to bring in, or nil
	tools *bootstrap // what to install for it, or nil

	client *client.Client
	vm     api.VM
	shim   *shim.Client
	kept   bool // the guest was late: the VM stays, with --rm too
}

// detached starts the VM, waits until it is ready, and prints its name.
func (l *launch) detached(ctx context.Context) error {
	ctx, stop := cancelOnSignal(ctx)
	defer stop()
	p := l.app.progress()
	defer p.end()
	if err := l.makeVM(ctx, p); err != nil {
		return interrupted(ctx, err)
	}
	defer l.client.Close()
	l.trace.start(l.vm.Trace)
	if l.bring != nil {
		if err := l.bringDetached(ctx, p); err != nil {
			p.end()
			l.undo(ctx)
			return interrupted(ctx, err)
		}
	}
	l.ready(p)
	if err := l.print(); err != nil {
		return err
	}
	l.remind()
	return nil
}

func (l *launch) print() error {
	if l.json {
		return l.app.json(l.vm)
	}
	_, err := fmt.Fprintln(l.app.Out, l.vm.Name)
	return err
}

// attached runs the command, or a shell, and returns its status.
func (l *launch) attached(ctx context.Context) error {
	g, err := l.boot(ctx)
	if l.bring != nil {
		defer l.bring.end()
	}
	if l.client != nil {
		defer l.client.Close()
	}
	if l.shim != nil {
		defer l.shim.Close()
	}
	if err != nil {
		return asOurs(err)
	}
	err = g.run(ctx)
	l.trace.mark("exec")
	if l.create.Ephemeral {
		if err := l.remove(); err != nil {
			l.app.warn("cannot delete the VM %s: %v", l.vm.Name, err)
		}
		l.trace.mark("delete")
	} else {
		l.remind()
	}
	return err
}

// boot takes the run to the point where the guest is ready and the command's
// stream is open. A signal until then undoes everything.
func (l *launch) boot(ctx context.Context) (*guestCommand, error) {
	ctx, stop := cancelOnSignal(ctx)
	defer stop()
	p := l.app.progress()
	defer p.end()
	if err := l.makeVM(ctx, p); err != nil {
		return nil, interrupted(ctx, err)
	}
	g, err := l.join(ctx, p)
	if err == nil {
		l.ready(p)
		return g, nil
	}
	p.end()
	l.undo(ctx)
	return nil, interrupted(ctx, err)
}

// undo removes the VM of a run that a signal ended before it was whole, and one that
// was to go anyway.
func (l *launch) undo(ctx context.Context) {
	if ctx.Err() == nil && (!l.create.Ephemeral || l.kept) {
		return
	}
	if err := l.remove(); err != nil {
		l.app.warn("cannot delete the VM %s: %v", l.vm.Name, err)
	}
}

func (l *launch) makeVM(ctx context.Context, p *progress) (err error) {
	if l.client, err = l.app.connect(ctx); err != nil {
		return err
	}
	l.trace.mark("connect")
	if l.bring != nil {
		l.bring.notes()
		l.tellOfOthers(ctx)
		l.bring.begin(ctx, true)
	}
	l.vm, err = l.client.CreateVM(ctx, l.create, p.watch)
	if err != nil {
		return l.explain(err)
	}
	l.app.say("%s", specLine(l.vm))
	return nil
}

// explain adds what to do about a name that is taken.
func (l *launch) explain(err error) error {
	if banger.CodeOf(err) != banger.AlreadyExists || l.create.Name == "" || len(banger.HintsOf(err)) > 0 {
		return err
	}
	return banger.Errorf(banger.AlreadyExists, "%w", err).
		Hint("banger vm start %s", l.create.Name).
		Hint("banger vm exec %s -- CMD", l.create.Name)
}

// join connects to the shim, becomes the VM's owner where it is to go with
// us, and asks for the command at once: the shim holds it until the guest is
// ready.
func (l *launch) join(ctx context.Context, p *progress) (*guestCommand, error) {
	var err error
	if l.shim, err = shim.DialAhead(ctx, paths.VM(l.vm.Dir)); err != nil {
		return nil, err
	}
	if l.create.Ephemeral {
		if err := l.shim.Own(ctx); err != nil {
			return nil, err
		}
	}
	if err := l.app.inheritProxy(ctx, l.vm, l.shim, &l.request); err != nil {
		return nil, err
	}
	g := &guestCommand{
		v: l.app.voice, vm: l.vm.Name, dir: paths.VM(l.vm.Dir), shim: l.shim, request: l.request, timeout: l.timeout,
	}
	if len(l.request.Argv) > 0 && l.bring == nil {
		if err := g.open(); err != nil {
			return nil, err
		}
	}
	p.say("wait for the guest")
	if err := l.awaitGuest(ctx); err != nil {
		return nil, l.failedBoot(ctx, err)
	}
	if l.bring != nil {
		if err := l.bringIn(ctx, p, g); err != nil {
			return nil, err
		}
	}
	if len(l.request.Argv) == 0 {
		if g.request.Argv, err = l.shell(ctx); err != nil {
			return nil, err
		}
	}
	return g, nil
}

func (l *launch) ready(p *progress) {
	l.app.say("ready in %s", elapsed(p.end()))
	if notice := networkNotice(l.vm); notice != "" && len(l.request.Argv) == 0 && !l.create.Wait { // a shell
		l.app.say("%s", notice)
	}
}

// remind says how to get back to a VM that stays.
func (l *launch) remind() {
	l.app.say("the VM %s keeps running", l.vm.Name)
	l.app.hint("banger exec %s -- CMD runs something in it; banger stop %s ends it", l.vm.Name, l.vm.Name)
}

// remove deletes the VM. Whatever ended the run must not end this too.
func (l *launch) remove() error {
	ctx, cancel := context.WithTimeout(context.Background(), undoLimit)
	defer cancel()
	err := l.client.DeleteVM(ctx, l.vm.ID, true)
	if banger.CodeOf(err) != banger.Unavailable {
		return err
	}
	again, err := l.app.connect(ctx) // the daemon may have been restarted under us
	if err != nil {
		return err
	}
	defer again.Close()
	return again.DeleteVM(ctx, l.vm.ID, true)
}
