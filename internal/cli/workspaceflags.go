package cli

import (
	"path"
	"path/filepath"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/workspace"
)

// workspaceFlags say what of a repository goes into a VM, and where.
type workspaceFlags struct {
	app       *app
	guestPath string
	branch    string
	from      string
	untracked bool
	mode      string
	depth     int
	dryRun    bool
}

func (f *workspaceFlags) register(a *app, cmd *cobra.Command) {
	f.app = a
	flags := cmd.Flags()
	flags.StringVar(&f.guestPath, "guest-path", workspace.DefaultGuestPath, "put the repository at `DIR` in the VM")
	flags.StringVar(&f.branch, "branch", "", "have the VM on a new branch `NAME`")
	flags.StringVar(&f.from, "from", "", "begin that branch at `REF`, with its files instead of yours")
	flags.BoolVar(&f.untracked, "include-untracked", false, "bring files that git does not track as well")
	flags.StringVar(&f.mode, "mode", workspace.Overlay, "bring an `overlay` (a shallow history) or full (all of it, and submodules)")
	flags.IntVar(&f.depth, "depth", 0, "bring the last `N` commits (default 1)")
	flags.BoolVar(&f.dryRun, "dry-run", false, "print what would go in, and do nothing")
	a.completeFlag(cmd, "mode", workspace.Overlay, workspace.Full)
}

// workspaceFlagNames are those that make no sense without a repository.
var workspaceFlagNames = []string{
	"guest-path", "branch", "from", "include-untracked", "mode", "depth", "dry-run", "no-bootstrap",
}

func (f *workspaceFlags) plan(cmd *cobra.Command, repository string) (*workspace.Plan, error) {
	if !path.IsAbs(f.guestPath) || path.Clean(f.guestPath) == "/" {
		return nil, badUsage("bad --guest-path %q: it must be an absolute path of a directory", f.guestPath)
	}
	if f.from != "" && f.branch == "" {
		err := badUsage("cannot begin at %q without a new branch", f.from).Hint("--branch NAME --from %s", banger.ShellWord(f.from))
		return nil, &usageError{err, cmd.UseLine()}
	}
	f.app.recoverApplies()
	return workspace.NewPlan(cmd.Context(), workspace.Options{
		Path: repository, Mode: f.mode, Depth: f.depth, Branch: f.branch, From: f.from, Untracked: f.untracked,
	})
}

// place says whose a repository becomes, "" for root, and where it goes, "" for the
// home of that user, since only root enters root's. named is who was asked for.
func (f *workspaceFlags) place(cmd *cobra.Command, named string) (user, guestPath string) {
	if named != "0" && named != "root" {
		user = named
	}
	if user == "" || cmd.Flags().Changed("guest-path") {
		return user, f.guestPath
	}
	return user, ""
}

// ownerOf is the name of the user whose a workspace is, "" where there is none.
func ownerOf(w banger.Workspace) string {
	if w.User == "" && !w.IsZero() {
		return "root" // also where commands are run as the image's own user
	}
	return w.User
}

// placed is a directory to begin in, which may be meant relative to that in the
// workspace.
func placed(base, dir string) string {
	if base == "" || filepath.IsAbs(dir) {
		return dir
	}
	return path.Join(base, dir)
}
