package cli

import (
	"context"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"banger"
	"banger/internal/api"
	"banger/internal/config"
	"banger/internal/paths"
	"banger/internal/shim"
	"banger/internal/workspace"
)

// bootstrapLog is where the installation of a repository's tools tells of
// itself, in the guest.
const bootstrapLog = "/var/log/banger-bootstrap.log"

// miseAt are the places where a guest may have mise.
var miseAt = []string{"/usr/local/bin/mise", "/usr/bin/mise", "/root/.local/bin/mise"}

// bootstrap is the installation of the tools that a repository names.
type bootstrap struct {
	app  *app
	tool string // the file that names them
	mise string // the host's binary, "" for none
}

// newBootstrap says what is to be installed, nil for nothing. It refuses what
// could not work for want of a network.
func newBootstrap(a *app, plan *workspace.Plan, vm api.CreateVM) (*bootstrap, error) {
	tool := plan.ToolFile()
	if tool == "" {
		return nil, nil
	}
	dirs, err := paths.FromEnv()
	if err != nil {
		return nil, err
	}
	cfg, _, err := config.Load(dirs.ConfigFile())
	if err != nil {
		return nil, err
	}
	nat := cfg.VMDefaults.NAT
	if vm.NAT != nil {
		nat = *vm.NAT
	}
	if !nat && len(vm.Allow) == 0 && len(cfg.VMDefaults.Allow) == 0 {
		return nil, banger.Errorf(banger.BadRequest, "cannot install the tools that %s names: the VM would have no network", tool).
			Hint("--nat lets it reach the internet, --allow HOST what you name").
			Hint("--no-bootstrap leaves the tools out")
	}
	mise := cfg.MiseBin
	if mise == "" {
		mise = workspace.HostProgram("mise")
	}
	return &bootstrap{a, tool, mise}, nil
}

// install installs the tools, through the proxies that env names: in the background for
// a shell, else it waits.
func (b *bootstrap) install(ctx context.Context, g workspaceGuest, dir string, env []string, background bool) error {
	there, err := b.bringMise(ctx, g)
	if err != nil || !there {
		return err
	}
	if err := g.openBootstrapLog(ctx); err != nil {
		return err
	}
	script := "exec >>" + bootstrapLog + " 2>&1; mise trust --yes --all; exec mise install --yes"
	c := workspace.Command{Argv: []string{"sh", "-c", script}, Dir: dir, Env: env}
	if background {
		b.app.say("the tools that %s names are being installed", b.tool)
		b.app.hint("banger vm logs --source bootstrap -f %s shows how it goes", g.name)
		return g.detach(ctx, c)
	}
	status, err := g.Run(ctx, c)
	if err == nil && status != 0 {
		b.app.warn("the tools that %s names were not all installed: mise ended with status %d", b.tool, status)
		b.app.hint("banger vm logs --source bootstrap %s", g.name)
	}
	return err
}

// openBootstrapLog lets a user who is not root write to the log.
func (g workspaceGuest) openBootstrapLog(ctx context.Context) error {
	if g.user == "" {
		return nil
	}
	argv := []string{"sh", "-c", `: >>"$0" && chown "$1" "$0"`, bootstrapLog, g.user}
	_, err := g.Run(ctx, workspace.Command{Argv: argv, Root: true})
	return err
}

// bringMise sees to it that the guest has mise.
func (b *bootstrap) bringMise(ctx context.Context, g workspaceGuest) (bool, error) {
	if there, err := g.has(ctx, miseAt...); err != nil || there {
		return there, err
	}
	if b.mise == "" {
		b.app.say("the tools that %s names are not installed: there is no mise, neither in the guest nor here", b.tool)
		b.app.hint("mise_bin in the configuration names one to be copied in")
		return false, nil
	}
	if _, err := os.Stat(b.mise); err != nil {
		return false, banger.Errorf(banger.NotFound, "cannot copy mise into %s: %w", g.name, err)
	}
	tree := &packer{follow: true}
	err := g.as("").Unpack(ctx, path.Dir(miseAt[0]), func(w io.Writer) error { return tree.pack(w, b.mise, path.Base(miseAt[0])) })
	return err == nil, err
}

// trust has mise take a repository's settings, where the guest has mise.
func (g workspaceGuest) trust(ctx context.Context, dir string) error {
	if there, err := g.has(ctx, miseAt...); err != nil || !there {
		return err
	}
	var complaint strings.Builder
	status, err := g.Run(ctx, workspace.Command{Argv: []string{"mise", "trust", "--yes", "--all"}, Dir: dir, Stderr: &complaint})
	if err == nil && status != 0 {
		g.app.warn("mise in the guest does not trust %s: %s", dir, strings.TrimSpace(complaint.String()))
	}
	return err
}

func (g workspaceGuest) has(ctx context.Context, paths ...string) (bool, error) {
	for _, p := range paths {
		if found, err := g.Look(ctx, p); err != nil || found == workspace.File {
			return err == nil, err
		}
	}
	return false, nil
}

// detach leaves a command running by itself.
func (g workspaceGuest) detach(ctx context.Context, c workspace.Command) error {
	command := &guestCommand{v: g.app.voice, vm: g.name, shim: g.shim}
	command.request.Argv, command.request.Dir, command.request.User, command.request.Env = c.Argv, c.Dir, g.guestRunner.name(), c.Env
	return command.detach(ctx)
}

// printBootstrap prints what the installation of tools told of itself.
func (o *logsOptions) printBootstrap(ctx context.Context, vm api.VM, sh *shim.Client) error {
	g := workspaceGuest{guestRunner{shim: sh}, o.app, vm.Name}
	if there, err := g.has(ctx, bootstrapLog); err != nil || !there {
		return banger.Errorf(banger.NotFound, "cannot show the log: no tools were installed in %s", vm.Name)
	}
	from := "+1"
	if o.tail >= 0 {
		from = strconv.Itoa(o.tail)
	}
	argv := []string{"tail", "-n", from}
	if o.follow {
		argv = append(argv, "-f")
	}
	out := o.app.guestOut(flushing{o.app.voice})
	_, err := g.Run(ctx, workspace.Command{Argv: append(argv, bootstrapLog), Stdout: out})
	return err
}

// bootstrap is what is to be installed for this run.
func (o *runOptions) bootstrap(plan *workspace.Plan, vm api.CreateVM) (*bootstrap, error) {
	if plan == nil || o.noBootstrap || len(o.argv) > 0 {
		return nil, nil
	}
	return newBootstrap(o.app, plan, vm)
}
