package cli

import (
	"context"
	"path"

	"banger"
	"banger/client"
	"banger/internal/paths"
	"banger/internal/shim"
)

// mise is what a command in a workspace runs under, where the guest has it.
var mise = []string{"mise", "exec", "--"}

// tellOfOthers says which VMs have this repository already.
func (l *launch) tellOfOthers(ctx context.Context) {
	all, err := l.client.VMs(ctx)
	if err != nil {
		return
	}
	for _, vm := range client.Of(l.bring.plan.Root, all) {
		l.app.say("the VM %s has this repository already", vm.Name)
		l.app.hint("banger exec %s -- CMD runs something in it; banger vm workspace prepare %s brings it up to date", vm.Name, vm.Name)
	}
}

// bringIn brings the repository into the guest, and has the command begin there.
func (l *launch) bringIn(ctx context.Context, p *progress, g *guestCommand) error {
	p.say("bring the repository in")
	l.trace.mark("wait")
	l.bring.follow(ctx, l.client, l.vm)
	vm, err := l.bring.deliver(ctx, l.client, l.vm, l.shim)
	l.bring.end() // the command may take long
	if err != nil {
		return l.undelivered(err)
	}
	l.trace.mark("workspace")
	l.vm = vm
	g.request.Dir = placed(path.Join(vm.Workspace.GuestPath, l.bring.plan.Sub), g.request.Dir)
	g.request.Under = mise
	if l.tools != nil {
		p.say("install tools")
		guest := workspaceGuest{guestRunner{l.shim, vm.Workspace.User}, l.app, vm.Name}
		env, err := l.app.openProxies(ctx, vm, l.shim)
		if err != nil {
			return err
		}
		return l.tools.install(ctx, guest, vm.Workspace.GuestPath, env, !l.create.Wait)
	}
	return nil
}

// undelivered says how to try again where the VM stays.
func (l *launch) undelivered(err error) error {
	if l.create.Ephemeral {
		return err
	}
	return banger.Errorf(banger.CodeOf(err), "%w", err).
		Hint("banger vm workspace prepare %s %s tries again; banger rm -f %s deletes the VM", l.vm.Name, quoteWords(l.bring.asked()), l.vm.Name)
}

// bringDetached is bringIn for a VM that nothing is run in.
func (l *launch) bringDetached(ctx context.Context, p *progress) error {
	defer l.bring.end()
	sh, err := shim.Dial(ctx, paths.VM(l.vm.Dir))
	if err != nil {
		return err
	}
	defer sh.Close()
	l.shim = sh
	return l.bringIn(ctx, p, &guestCommand{})
}
