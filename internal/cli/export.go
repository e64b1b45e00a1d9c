package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/api"
	"banger/internal/patch"
	"banger/internal/paths"
	"banger/internal/workspace"
)

type exportOptions struct {
	app    *app
	file   string
	commit string
	format string
	apply  bool
	json   bool
}

func newExport(a *app) *cobra.Command {
	o := &exportOptions{app: a}
	cmd := &cobra.Command{
		Use:   "export [flags] <vm>",
		Short: "Take what was done in a VM's repository out, as a patch",
		Long: `Print a patch of everything that was done in a VM to the repository that was brought in, committed or
not: the difference between the files as they are and as they were brought in. Files that git ignores
are not in it. Nothing changes in the VM; a suspended one is woken. The patch is written whole or not
at all, and "git apply" takes it.

--apply makes the changes in the work tree that the repository came from, all of them or none: it
refuses where a file there is no longer as it was brought in. The index and the branches stay as they
are. --format mbox prints the commits instead, for "git am".`,
		Example: `  banger vm workspace export devbox -o work.patch
  banger vm workspace export devbox --apply
  banger vm workspace export devbox --format mbox | git am`,
		Args:              exactly("VM"),
		ValidArgsFunction: a.completeVMs(one, wakes),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *client.Client) error { return o.run(ctx, c, args[0]) })
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.file, "output", "o", "", "write to `FILE` instead of stdout")
	flags.StringVar(&o.commit, "base-commit", "", "compare with this `COMMIT` of the VM's repository instead of what was brought in")
	flags.StringVar(&o.format, "format", "patch", "`patch`, or mbox for the commits alone")
	flags.BoolVar(&o.apply, "apply", false, "make the changes where the repository came from")
	flags.BoolVar(&o.json, "json", false, "print JSON that says what changed, instead of the patch")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"patch", "mbox"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (o *exportOptions) check() error {
	switch mbox := o.format == "mbox"; {
	case !mbox && o.format != "patch":
		return badUsage("bad --format %q: it must be patch or mbox", o.format)
	case o.apply && mbox:
		return badUsage("--apply is for patches, not for --format mbox").Hint("... --format mbox | git am")
	case o.apply && o.commit != "":
		return badUsage("--apply makes the changes since the repository was brought in, not those since --base-commit").
			Hint("... --base-commit COMMIT | git apply")
	case o.json && mbox:
		return badUsage("--json is for patches, not for --format mbox")
	}
	return nil
}

func (o *exportOptions) run(ctx context.Context, c *client.Client, ref string) error {
	o.app.recoverApplies() // also where the VM is no more
	vm, sh, err := o.app.reach(ctx, c, ref)
	if err != nil {
		return err
	}
	defer sh.Close()
	w := vm.Workspace
	switch {
	case w.GuestPath == "":
		return banger.Errorf(banger.NotFound, "cannot export from %s: no repository was brought in", vm.Name).
			Hint("banger vm workspace prepare %s .", vm.Name)
	case w.BaseTree == "":
		return banger.Errorf(banger.NotFound, "cannot export from %s: it is not recorded what was brought in", vm.Name).
			Hint("banger vm cp %s:%s . copies files out", vm.Name, banger.ShellWord(w.GuestPath))
	}
	dirs, err := paths.FromEnv()
	if err != nil {
		return err
	}
	e := &export{exportOptions: o, vm: vm, guest: guestRunner{sh, w.User}, dirs: dirs,
		taking: workspace.Taking{Path: w.GuestPath, Base: w.BaseTree, Head: w.HeadCommit, Commit: o.commit}}
	if o.format == "mbox" {
		err = e.mailbox(ctx)
	} else {
		err = e.patch(ctx)
	}
	return banger.Wrap(err, "cannot export from %s", vm.Name)
}

// export is one that is under way.
type export struct {
	*exportOptions
	vm     api.VM
	guest  guestRunner
	dirs   paths.Dirs
	taking workspace.Taking
}

// exported says what an export did.
type exported struct {
	VM         string         `json:"vm"`
	Base       string         `json:"base_tree"`
	Tree       string         `json:"tree"`
	Files      []exportedFile `json:"files"`
	Submodules []string       `json:"submodules,omitempty"`   // changed, and in the patch as a commit's name only
	Left       []string       `json:"repositories,omitempty"` // made in the VM, not in the patch
	Output     string         `json:"output,omitempty"`
	Applied    *patch.Applied `json:"applied,omitempty"`
	AppliedTo  string         `json:"applied_to,omitempty"`
}

type exportedFile struct {
	Path   string `json:"path"`
	Status string `json:"status"` // added, changed, removed
}

func (e *export) patch(ctx context.Context) error {
	work, err := workspace.TakeOut(ctx, e.guest, e.dirs.Exports(), e.taking)
	if err != nil {
		return err
	}
	defer work.Close()
	done := exported{VM: e.vm.Name, Base: work.Base, Tree: work.Tree, Files: []exportedFile{}, Output: e.file}
	for _, c := range work.Changes {
		done.Files = append(done.Files, exportedFile{c.Path, c.Status()})
	}
	done.Submodules, done.Left = work.Repositories()
	for _, path := range done.Left {
		e.app.warn("%q is a repository of its own: its files are left out", path)
	}
	for _, path := range done.Submodules {
		e.app.warn("the submodule %q was changed: its files are not in the patch", path)
	}
	if e.apply {
		applied, err := work.Apply(ctx, e.vm.Workspace.SourcePath, e.dirs.Applies())
		if err != nil {
			return e.notApplied(err)
		}
		done.Applied, done.AppliedTo = &applied, e.vm.Workspace.SourcePath
	}
	if e.file != "" || !e.apply && !e.json {
		if err := e.write(func(w io.Writer) error { return work.Patch(ctx, w) }); err != nil {
			return err
		}
	}
	if e.json {
		return e.app.json(done)
	}
	e.report(done)
	return nil
}

func (e *export) notApplied(err error) error {
	if errors.As(err, new(patch.HalfDone)) {
		return banger.Errorf(banger.CodeOf(err), "only a part was applied to %s: %w", e.vm.Workspace.SourcePath, err)
	}
	return banger.Errorf(banger.CodeOf(err), "nothing was applied to %s: %w", e.vm.Workspace.SourcePath, err).
		Hint("banger vm workspace export %s -o FILE writes a patch", e.vm.Name)
}

func (e *export) mailbox(ctx context.Context) error {
	dirty := false
	err := e.write(func(w io.Writer) (err error) {
		dirty, err = workspace.Mailbox(ctx, e.guest, e.taking, w)
		return err
	})
	if err == nil && dirty {
		e.app.warn("%s has changes that are in no commit and not in the mails", e.vm.Name)
	}
	return err
}

// write writes to where the person wants it, all or nothing. A terminal gets no
// control characters of a guest's.
func (e *export) write(content func(io.Writer) error) error {
	if e.file != "" {
		return writeWhole(e.file, content)
	}
	return spool(e.dirs.Cache, e.app.guestOut(e.app.Out), content)
}

func (e *export) report(done exported) {
	n := len(done.Files) - len(done.Left)
	switch a := done.Applied; {
	case n == 0:
		e.app.say("nothing was changed in %s", e.vm.Name)
	case a == nil:
		e.app.say("%s changed in %s", files(n), e.vm.Name)
	case a.Written+a.Removed == 0:
		e.app.say("%s is as in %s already", done.AppliedTo, e.vm.Name)
	default:
		e.app.say("%s written, %d removed in %s", files(a.Written), a.Removed, done.AppliedTo)
	}
}

func files(n int) string {
	if n == 1 {
		return "1 file"
	}
	return fmt.Sprintf("%d files", n)
}
