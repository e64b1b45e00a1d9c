package cli

import (
	"context"
	"path"
	"strconv"
	"strings"

	"banger/client"
	"banger/internal/api"
	"banger/internal/shim"
	"banger/internal/workspace"
)

// bringing is one repository on its way into one VM. What it needs of the host
// is made ready while the VM may still be starting.
type bringing struct {
	app       *app
	plan      *workspace.Plan
	guestPath string // "" for repo in the home of the user
	user      string // whose the files become, "" for root
	anybodys  bool   // nobody said whose
	placed    bool   // somebody said where
	force     bool

	loaded chan struct{}
	cargo  *workspace.Cargo
	err    error
}

// begin starts to make the repository ready; whole says that the guest has
// nothing of it. end must be called.
func (b *bringing) begin(ctx context.Context, whole bool) {
	b.loaded = make(chan struct{})
	go func() {
		defer close(b.loaded)
		if b.cargo, b.err = b.plan.Load(ctx); b.err == nil && whole {
			b.cargo.Pack()
		}
	}()
}

// asked is what a prepare has to be asked for, to bring in the same.
func (b *bringing) asked() []string {
	o := b.plan.Options
	words := []string{b.plan.Root}
	for _, f := range []struct{ flag, value string }{{"--user", b.user}, {"--branch", o.Branch}, {"--from", o.From}} {
		if f.value != "" {
			words = append(words, f.flag, f.value)
		}
	}
	if o.Mode == workspace.Full {
		words = append(words, "--mode", o.Mode)
	}
	if o.Depth > 1 {
		words = append(words, "--depth", strconv.Itoa(o.Depth))
	}
	if o.Untracked {
		words = append(words, "--include-untracked")
	}
	if b.placed {
		words = append(words, "--guest-path", b.guestPath)
	}
	return words
}

// settle decides where the repository goes and whose it becomes: where it is already, if
// nobody said otherwise.
func (b *bringing) settle(ctx context.Context, c *client.Client, vm api.VM) {
	if w := vm.Workspace; w.SourcePath == b.plan.Root && !b.placed && (b.anybodys || b.user == w.User) {
		b.guestPath, b.user = w.GuestPath, w.User
	} else {
		b.follow(ctx, c, vm)
	}
}

// follow has the files become those of the image's own user, whom commands are run as,
// where nobody said whose they are to be.
func (b *bringing) follow(ctx context.Context, c *client.Client, vm api.VM) {
	if !b.anybodys {
		return
	}
	image, err := c.Image(ctx, vm.ImageID)
	if err != nil || image.User == "" {
		return // it may be gone
	}
	if name, _, _ := strings.Cut(image.User, ":"); name == "root" || name == "0" {
		return
	}
	b.user = image.User
	if !b.placed {
		b.guestPath = ""
	}
}

// end removes what begin made. It can be repeated.
func (b *bringing) end() {
	if b.loaded == nil {
		return // it was never begun
	}
	<-b.loaded
	if b.cargo != nil {
		b.cargo.Close()
	}
}

// deliver brings the repository in, and has the ledger note it.
func (b *bringing) deliver(ctx context.Context, c *client.Client, vm api.VM, sh *shim.Client) (api.VM, error) {
	<-b.loaded
	if b.err != nil {
		return vm, b.err
	}
	guest := workspaceGuest{guestRunner{sh, b.user}, b.app, vm.Name}
	home, err := guest.home(ctx)
	if err != nil {
		return vm, err
	}
	to := b.guestPath
	if to == "" {
		to = path.Join(home, path.Base(workspace.DefaultGuestPath))
	}
	done, err := b.cargo.Deliver(ctx, workspace.Target{
		Guest: guest, Path: to, Home: home, User: b.user, Record: vm.Workspace, Force: b.force,
	})
	if err != nil {
		return vm, err
	}
	vm.Workspace = done.Workspace
	if _, err := c.ChangeVM(ctx, vm.ID, api.ChangeVM{Workspace: &done.Workspace}); err != nil {
		b.app.warn("cannot note the workspace of %s: %v", vm.Name, err)
	}
	b.report(done)
	if b.plan.ToolFile() == "" || done.Nothing {
		return vm, nil
	}
	return vm, guest.trust(ctx, done.GuestPath)
}

func (b *bringing) report(done *workspace.Prepared) {
	if done.Nothing {
		b.app.say("nothing has changed since it was brought in")
		return
	}
	removed := ""
	if done.Removed > 0 {
		removed = ", " + counted(done.Removed, "file") + " removed"
	}
	b.app.say("brought %s to %s: %s, %s%s", b.plan.Root, done.GuestPath, counted(done.Files, "file"), size(done.Bytes), removed)
	if done.NoGit {
		b.app.say("the guest has no git: it got the files without their history")
	}
}

// notes say what does not travel.
func (b *bringing) notes() {
	if n := b.plan.Left; n > 0 {
		b.app.say("%s that git does not track: --include-untracked brings %s", stays(n), themOrIt(n))
	}
	for _, note := range b.plan.Notes {
		b.app.say("%s", note)
	}
}

func stays(n int) string {
	if n == 1 {
		return "1 file stays"
	}
	return counted(n, "file") + " stay"
}

func themOrIt(n int) string {
	if n == 1 {
		return "it"
	}
	return "them"
}
