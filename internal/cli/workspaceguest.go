package cli

import (
	"context"
	"io"
	"path"
	"strings"

	"banger"
	"banger/internal/workspace"
)

// guestHome is root's home in a guest.
const guestHome = "/root"

// workspaceGuest is a guest as a workspace sees it, behind its shim.
type workspaceGuest struct {
	guestRunner
	app  *app
	name string
}

// as is the same guest for another user's files and commands.
func (g workspaceGuest) as(user string) workspaceGuest {
	g.user = user
	return g
}

// Unpack implements workspace.Guest.
func (g workspaceGuest) Unpack(ctx context.Context, dir string, write func(io.Writer) error) error {
	return (&copying{app: g.app, vm: g.name, link: g.shim.Guest(), user: g.user}).put(ctx, dir, write)
}

// home is where the guest's user lives, who is made where the image has none of
// that name.
func (g workspaceGuest) home(ctx context.Context) (string, error) {
	if g.user == "" {
		return guestHome, nil
	}
	var out, complaint strings.Builder
	status, err := g.Run(ctx, workspace.Command{Argv: []string{"sh", "-c", `printf %s "$HOME"`}, Stdout: &out, Stderr: &complaint})
	if err != nil {
		return "", err
	}
	if status == 127 {
		return "/", nil // no shell to ask, and nobody's home to look for
	}
	home := path.Clean(out.String())
	if status != 0 || !path.IsAbs(home) {
		return "", banger.Errorf(banger.NotFound, "cannot find the home of %s in %s: %s", g.user, g.name, strings.TrimSpace(complaint.String())).
			Hint("--guest-path DIR says where to put the repository")
	}
	return home, nil
}

// Look implements workspace.Guest.
func (g workspaceGuest) Look(ctx context.Context, path string) (workspace.Found, error) {
	st, err := g.shim.Guest().Stat(ctx, path)
	switch {
	case err != nil || !st.Exists:
		return workspace.Nothing, err
	case st.Dir:
		return workspace.Directory, nil
	}
	return workspace.File, nil
}
