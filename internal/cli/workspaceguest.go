package cli

import (
	"context"
	"io"

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

// Unpack implements workspace.Guest.
func (g workspaceGuest) Unpack(ctx context.Context, dir string, write func(io.Writer) error) error {
	return (&copying{app: g.app, vm: g.name, link: g.shim.Guest()}).put(ctx, dir, write)
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
